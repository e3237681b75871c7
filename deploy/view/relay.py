"""One client of the live view: frames go out as fast as it draws them, its commands go to the show."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from starlette.websockets import WebSocket, WebSocketDisconnect

from spikeport.convert.errors import ConvertError
from spikeport.deploy.errors import DeployError, SettingError
from spikeport.models.errors import ModelsError

from .backlog import Audience
from .protocol import Command, CommandError, done_message, encode, error_message, facts_message, parse_command
from .types import Box, Position, Totals

FIRST_CREDIT = 2
MOST_CREDIT = 4
FAST_S = 0.05
SLOW_S = 0.15
"""Frames under way, and the round trips that make them more or fewer.

Source: measured, docs of the live view: a window of two frames took the 95th percentile of latency from 9.3 s to 0.6 s
on a machine that was too busy.
"""

COMMANDS_PER_S = 20
_MOST_REFUSED = 200
"""Commands above the rate in a row, after which a client is sent away."""

_MOST_WAITING = 32
"""Commands of one client that wait for the ones before them."""

MAX_RUNNING = 2
"""Commands of one client that run at a time: the second may end the first."""

_PATIENCE_S = 0.1
"""How long a command is waited for before the next one begins."""

_POLICY_VIOLATION = 1008
_GOING_AWAY = 1001
_CLOSE_S = 0.3
"""How long a client that does not read may hold up its own farewell."""


_BEGIN = Command("begin", None, {})
"""What a client's first frame on its screen stands for: somebody looks on now, and no client can say so itself."""


class Player(Protocol):
    """What commands are carried out by: the show. Each method may block until the show has come to its next cut."""

    def begin(self) -> None:
        """Go on, if that waits for somebody to look on."""

    def play(self) -> None:
        """Go on."""

    def pause(self) -> None:
        """Stop at the next cut."""

    def step(self, n: int = 1) -> None:
        """Run exactly ``n`` steps and stop."""

    def set_speed(self, speed: float | None) -> None:
        """Go at a multiple of the recording's own speed; None: as fast as it can."""

    def seek(self, t_us: int) -> None:
        """Go to a time of the reel."""

    def open(self, index: int) -> None:
        """Go to the start of a reel."""

    def set_roi(self, box: Box | None) -> None:
        """Let only events of a box through; None: all of them."""

    def set_knobs(self, **knobs: Any) -> None:
        """Decide otherwise from the next window on."""

    def watch(self, core: int | None) -> None:
        """Have the spike map of a core."""

    def record(self, path: Path | None) -> None:
        """Write what happens to a file; None: end it."""

    def add_listener(self, listener: Audience) -> None:
        """Tell another listener."""

    def remove_listener(self, listener: Audience) -> None:
        """Tell a listener no more."""

    def position(self) -> Position:
        """Return where the show stands, at once."""

    def totals(self) -> Totals:
        """Return what was counted since the show began, at once."""

    def so_far(self) -> NDArray[np.int64]:
        """Return the spikes of each class since the reel's start, at once."""


class Credit:
    """How many frames may be under way to a client: those that it has not drawn yet.

    Law: at most ``FIRST_CREDIT`` at first, one more for each round trip below ``FAST_S`` up to ``MOST_CREDIT``, one
    less for each above ``SLOW_S`` down to one.
    """

    def __init__(self) -> None:
        self.window = FIRST_CREDIT
        self._sent_s: OrderedDict[int, float] = OrderedDict()
        self._newest = 0

    @property
    def is_left(self) -> bool:
        """Whether another frame may be sent."""
        return len(self._sent_s) < self.window

    def sent(self, number: int, now_s: float) -> None:
        """Count a frame as under way."""
        self._sent_s[number] = now_s
        self._newest = number

    def shown(self, number: int, now_s: float) -> bool:
        """Count a frame and those before it as drawn; return whether that is news.

        Raises: CommandError for a frame that was never sent.
        """
        if not 0 < number <= self._newest:
            raise CommandError(f"shown: expected a frame that was sent, at most {self._newest}, found {number}.")
        if number not in self._sent_s:
            return False
        round_trip_s = now_s - self._sent_s[number]
        while self._sent_s and next(iter(self._sent_s)) <= number:
            self._sent_s.popitem(last=False)
        if round_trip_s < FAST_S:
            self.window = min(MOST_CREDIT, self.window + 1)
        elif round_trip_s > SLOW_S:
            self.window = max(1, self.window - 1)
        return True


class Rate:
    """A bucket of commands that fills at ``per_s``."""

    def __init__(self, per_s: int, now_s: float) -> None:
        self._per_s = per_s
        self._left = float(per_s)
        self._at_s = now_s

    def allows(self, now_s: float) -> bool:
        """Return whether there is room for one more, and take it."""
        self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclasses.dataclass(frozen=True)
class Stage:
    """What all clients share: the show, who is told of it, the threads for commands, and where a session goes."""

    show: Player
    audience: Audience
    threads: Executor
    record_path: Callable[[], Path] | None
    fps: float


def carry_out(command: Command, show: Player, record_path: Callable[[], Path] | None) -> None:
    """Have the show do what a command says.

    Raises: what the show raises; SettingError where nothing may be recorded.
    """
    values = command.values
    match command.do:
        case "begin":
            show.begin()
        case "play":
            show.play()
        case "pause":
            show.pause()
        case "step":
            show.step(values["n"])
        case "speed":
            show.set_speed(values["value"])
        case "seek":
            show.seek(values["t_us"])
        case "open":
            show.open(values["index"])
        case "roi":
            box = values["box"]
            show.set_roi(None if box is None else (box[0], box[1], box[2], box[3]))
        case "knobs":
            show.set_knobs(**values)
        case "watch":
            show.watch(values["core"])
        case "record":
            show.record(_path_of(record_path) if values["on"] else None)
        case _:
            raise CommandError(f"{command.do}: nothing to carry out.", command.id)


def _path_of(record_path: Callable[[], Path] | None) -> Path:
    if record_path is None:
        raise SettingError("record: this view has no place for sessions. Try `spikeport view --help`.")
    return record_path()


class Client:
    """One WebSocket of the page, from when it was let in until it is gone."""

    def __init__(self, socket: WebSocket, stage: Stage, facts: Mapping[str, Any]) -> None:
        self._socket = socket
        self._stage = stage
        self._facts: Mapping[str, Any] | None = facts
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._credit = Credit()
        self._rate = Rate(COMMANDS_PER_S, self._loop.time())
        self._n_refused = 0
        self._waiting: asyncio.Queue[Command] = asyncio.Queue(_MOST_WAITING)
        self._is_called = self._has_seen = False

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Send facts before the next frame."""
        self._facts = facts
        self._wake.set()

    def stop(self) -> None:
        """Send the client away, as the server ends."""
        self._stop.set()

    async def serve(self, after: Callable[[Command], None]) -> None:
        """Send frames and carry out commands until the client goes or is sent away; ``after`` hears of each done."""
        self._backlog = self._stage.audience.join(self._call)
        works = [self._send_frames(), self._read(), self._work(after), self._stop.wait()]
        tasks = [asyncio.ensure_future(work) for work in works]
        code = _GOING_AWAY
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except CommandError as problem:
            code = _POLICY_VIOLATION
            await self._say(self._send(error_message(str(problem), problem.of)))
        except WebSocketDisconnect:
            return
        finally:
            self._stage.audience.leave(self._backlog)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._say(self._close(code))

    async def _send(self, message: str | bytes) -> None:
        try:
            if isinstance(message, str):
                await self._socket.send_text(message)
            else:
                await self._socket.send_bytes(message)
        except RuntimeError as gone:  # sent away by the protocol, as for a message that is too long
            raise WebSocketDisconnect(1006) from gone

    async def _close(self, code: int) -> None:
        with suppress(RuntimeError):
            await self._socket.close(code)

    async def _say(self, last: Awaitable[None]) -> None:
        """Send one of the last messages, unless the client does not take it or is gone."""
        with suppress(TimeoutError, WebSocketDisconnect):
            await asyncio.wait_for(last, _CLOSE_S)

    def _call(self) -> None:
        """Wake the sender, from the show's thread; once until it has looked."""
        if not self._is_called:
            self._is_called = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _send_frames(self) -> None:
        """Send what is new, at most ``fps`` times a second and only where there is credit."""
        show, period_s = self._stage.show, 1 / self._stage.fps
        number, due_s = 0, self._loop.time()
        told: tuple[Position, Totals] | None = None
        while True:
            self._wake.clear()
            self._is_called = False
            if self._facts is not None:
                facts, self._facts = self._facts, None
                await self._send(facts_message(facts))
            state = show.position(), show.totals()
            if not self._credit.is_left:
                await self._wake.wait()
            elif self._backlog.is_empty and state == told:
                # Nobody calls about a pause or a problem.
                await self._wait(period_s)
            elif (wait_s := due_s - self._loop.time()) > 0:
                await asyncio.sleep(wait_s)
            else:
                number, told, now_s = number + 1, state, self._loop.time()
                # One period late at most is made up for, so that frames keep the show's pace.
                due_s = max(due_s, now_s - period_s) + period_s
                frame = self._backlog.take(*state, show.so_far())
                self._credit.sent(number, now_s)
                await self._send(encode(frame, number))

    async def _wait(self, timeout_s: float) -> None:
        timer = self._loop.call_later(timeout_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _read(self) -> None:
        """Take credit back and put commands in line. Raises: CommandError where a client sends what is none."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                raise CommandError("A command is a text message, found a binary one.")
            command = parse_command(text)
            now_s = self._loop.time()
            if command.do == "shown" and self._credit.shown(command.values["frame"], now_s):
                self._wake.set()
                if not self._has_seen:
                    self._has_seen = True
                    await self._enqueue(_BEGIN)
            elif not self._rate.allows(now_s):
                await self._refuse(command, f"At most {COMMANDS_PER_S} commands a second.")
            elif command.do != "shown":
                await self._enqueue(command)

    async def _enqueue(self, command: Command) -> None:
        self._n_refused = 0
        try:
            self._waiting.put_nowait(command)
        except asyncio.QueueFull:
            await self._refuse(command, f"{_MOST_WAITING} commands wait already.")

    async def _refuse(self, command: Command, why: str) -> None:
        self._n_refused += 1
        if self._n_refused > _MOST_REFUSED:
            raise CommandError(why, command.id)
        if command.id is not None:
            await self._send(error_message(f"{command.do}: {why} Try again in a moment.", command.id))

    async def _work(self, after: Callable[[Command], None]) -> None:
        """Begin the client's commands in their order; one that takes long lets the next one begin, which may end it."""
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                task = asyncio.create_task(self._carry_out(await self._waiting.get(), after))
                running.add(task)
                await asyncio.wait((task,), timeout=_PATIENCE_S)
                if len(running) >= MAX_RUNNING:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for done in [one for one in running if one.done()]:
                    running.discard(done)
                    done.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _carry_out(self, command: Command, after: Callable[[Command], None]) -> None:
        """Have the show do a command, in a thread as the show may take its time, and answer."""
        stage = self._stage
        try:
            await self._loop.run_in_executor(stage.threads, carry_out, command, stage.show, stage.record_path)
        except Exception as fault:  # noqa: BLE001 - what engines and readers raise, a user's own among them, is told
            is_ours = isinstance(fault, (DeployError, ConvertError, ModelsError))
            answer = error_message(str(fault) if is_ours else f"{type(fault).__name__}: {fault}", command.id)
        else:
            after(command)
            answer = done_message(command.id)
        if command is not _BEGIN:
            await self._send(answer)
        self._wake.set()
