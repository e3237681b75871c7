"""The parts of the event state-space model; ``spikeport.models.event_ssm`` is where they come together."""
