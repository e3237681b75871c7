"""The live view: a program at work, in a browser."""
