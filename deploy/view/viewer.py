"""A viewer: what is shown, on what it runs, and the page that shows it."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np

from spikeport.deploy.artifact import load_program
from spikeport.deploy.device import EMULATOR, parse_device
from spikeport.deploy.errors import SessionFileError, SettingError
from spikeport.deploy.types import Program
from spikeport.models.events import Events

from .assets import Assets
from .backlog import Audience
from .facts import facts_of, first_watched, names_of, shown_settings
from .icons import find_icons
from .recent import Recent
from .recorder import SUFFIXES, SessionRecorder
from .reels import CameraReel, RecordingReel, check_sensor, open_input
from .replay import ReplayEngine, open_session
from .server import ViewServer
from .settings import ServeSettings, ViewSettings
from .show import Show
from .tape import SessionFacts, is_session, knobs_of
from .types import Engine, Position, Reel, Stretch, Window
from .windows import Readout, ask_readout

Source = str | Path | Events | Reel | Sequence[Events | Reel]
"""What is played: as ``--input`` names it, recordings at hand, or reels of the user's own."""


class Viewer:
    """A show and its page: a context manager that closes both.

    ``program`` is a program, its file, or the file of a recorded session, which brings its own ``source`` and device.
    ``source`` is a recording, a folder, "camera", "udp://HOST:PORT" or "-", or events at hand. ``readout`` takes the
    counts of each class in an interval and returns the winner, or None. ``show`` has the controls; ``record_to`` is
    where the page's button records to, None: a new file in the working directory.
    Nothing is served before ``start``, and what cannot be shown is refused before that.
    Raises: SettingError, RecordingError, DeviceError, and the errors of the files' readers.
    """

    def __init__(
        self,
        program: Program | str | Path,
        source: Source | None = None,
        *,
        device: str = EMULATOR,
        settings: ViewSettings | None = None,
        serve: ServeSettings | None = None,
        readout: Readout | None = None,
    ) -> None:
        self.settings = settings or ViewSettings()
        self.serve = serve or ServeSettings()
        self.record_to: Path | None = None
        self._readout = readout
        self._inputs = [
            Path(one) for one in (program, source) if isinstance(one, (str, Path)) and "://" not in str(one)
        ]
        with contextlib.ExitStack() as stack:
            engine, reels, name = _opened(program, source, device, settings=self.settings)
            stack.callback(engine.close)
            if isinstance(engine, ReplayEngine) and engine.reels[0].knobs:
                self.settings = self.settings.changed(**engine.reels[0].knobs[0][1])
            self._names = names_of(engine, self.settings)
            if self.settings.watch is None:
                self.settings = self.settings.changed(watch=first_watched(engine))
            if readout is not None:
                ask_readout(readout, np.zeros(len(self._names), np.int64))
            icons = find_icons(self.settings.icons, self._names)
            audience = Audience(Recent(self._names, fade_ms=self.settings.fade_ms, recording=reels[0].name))
            self.show = Show(
                engine,
                reels,
                settings=self.settings,
                readout=readout,
                listeners=(audience, _Knobs(self._tell_settings)),
                recorder=self._recorder,
            )
            urls = [None if icon is None else f"icons/{quote(icon.name)}" for icon in icons]
            self.facts = facts_of(engine, reels, name=name, settings=self.settings, urls=urls)
            assets = Assets(
                icons={icon.name: icon for icon in icons if icon is not None},
                windows_csv=audience.recent.windows_csv,
                activity_gif=audience.recent.activity_gif,
                record_path=self._next_record,
            )
            self._server = ViewServer(self.show, self.facts, self.serve, assets, audience=audience)
            stack.pop_all()

    @property
    def device(self) -> str:
        """The name of what the program runs on."""
        return self.show.engine.name

    @property
    def is_on_board(self) -> bool:
        """Whether that is a board, real or virtual."""
        return self.show.engine.is_timed

    @property
    def url(self) -> str:
        """The address of the page, with its token, once it is served."""
        return self._server.url

    def start(self) -> Self:
        """Serve the page, and play: once a page is there, unless ``serve`` says not to wait for one.

        Raises: SettingError where the address cannot be had.
        """
        self.show.start()
        if self.serve.waits_for_viewer:
            self.show.await_viewer()
        self._server.start()
        if not self.serve.waits_for_viewer:
            self.show.play()
        return self

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return whether all was played, or the show stands still for another reason, having waited for that."""
        return self.show.wait(timeout_s)

    def close(self) -> None:
        """Send the pages away, finish a recorded session and give the device back; closing twice is fine."""
        self._server.close()
        self.show.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell_settings(self, settings: ViewSettings) -> None:
        self.facts = {**self.facts, "settings": shown_settings(settings)}
        self._server.tell(self.facts)

    def _recorder(self, path: Path) -> SessionRecorder:
        engine = self.show.engine
        facts = SessionFacts(
            engine.name,
            engine.power_source,
            self._names,
            (engine.program.dvs.input_shape[1], engine.program.dvs.input_shape[2]),
            self.show.settings,
            has_own_readout=self._readout is not None,
        )
        return SessionRecorder(path, engine.program, facts, inputs=self._inputs)

    def _next_record(self) -> Path:
        """Return where the next session goes: never where one lies already."""
        wanted = self.record_to or Path(f"session-{dt.datetime.now().astimezone():%Y%m%d-%H%M%S}{SUFFIXES[0]}")
        tries = (wanted, *(wanted.with_stem(f"{wanted.stem}-{number}") for number in range(2, 1000)))
        return next((path for path in tries if not path.exists()), wanted)


class _Knobs:
    """A listener that passes on other settings, wherever they come from."""

    def __init__(self, tell: Callable[[ViewSettings], None]) -> None:
        self.on_knobs = tell

    def on_stretch(self, stretch: Stretch) -> None:
        """Do nothing."""

    def on_window(self, window: Window) -> None:
        """Do nothing."""

    def on_reset(self, position: Position) -> None:
        """Do nothing."""


def view(
    program: Program | str | Path,
    source: Source | None = None,
    *,
    device: str = EMULATOR,
    settings: ViewSettings | None = None,
    serve: ServeSettings | None = None,
    readout: Readout | None = None,
) -> None:
    """Show a program at work and print the address of its page; return when Ctrl-C ends it. Raises: as ``Viewer``."""
    from spikeport.models.console import show_line

    with Viewer(program, source, device=device, settings=settings, serve=serve, readout=readout) as viewer:
        viewer.start()
        show_line(viewer.url)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def _has_default_knobs(settings: ViewSettings) -> bool:
    """Return whether nobody asked for other windows than those of a recorded session."""
    return knobs_of(settings) == knobs_of(ViewSettings())


def _opened(
    program: Program | str | Path, source: Source | None, device: str, *, settings: ViewSettings
) -> tuple[Engine, tuple[Reel, ...], str]:
    """Return the engine, the reels, and the name of the program."""
    parsed = parse_device(device)
    if not isinstance(program, Program) and is_session(program):
        if source is not None or parsed.chip is not None:
            what = "an input" if source is not None else "a device"
            raise SettingError(
                f"{Path(program).name}: expected nothing but the recorded session, found {what} beside it. Try without."
            )
        replay = ReplayEngine(open_session(program), follows_knobs=_has_default_knobs(settings))
        return replay, replay.reels, Path(program).name
    loaded = program if isinstance(program, Program) else _loaded(program)
    name = str(loaded.provenance.get("network") or "program") if isinstance(program, Program) else Path(program).name
    if isinstance(source, (str, Path)) and is_session(source):
        raise SettingError(
            f"input '{Path(source).name}': expected a recording, found a recorded session, which has its own program. "
            "Try spikeport view with nothing but the session."
        )
    if source is None:
        raise SettingError(
            f"{name}: expected an input to show it with, found none. Try --input RECORDING, or camera on a board."
        )
    reels = _reels(source, loaded)
    if any(isinstance(reel, CameraReel) for reel in reels) and parsed.chip is None:
        raise SettingError(
            "camera: expected a board, which has one, found the emulator. Try --device speck2fdevkit:0, or "
            "virtual:speck2fdevkit."
        )
    check_sensor(reels[0], (loaded.dvs.input_shape[1], loaded.dvs.input_shape[2]), rescale=settings.rescale)
    if parsed.chip is None:
        from .emulated import EmulatedEngine

        return EmulatedEngine(loaded), reels, name
    from .boarded import open_board_engine

    return open_board_engine(device, loaded, camera=isinstance(reels[0], CameraReel)), reels, name


def _loaded(path: str | Path) -> Program:
    place = Path(path)
    if place.suffix == SUFFIXES[0] and place.is_file():
        raise SessionFileError(
            f"{place.name}: expected a program, or a recorded session, found neither. Try the program's .safetensors, "
            "and a recording as --input."
        )
    return load_program(place)


def _reels(source: Source, program: Program) -> tuple[Reel, ...]:
    size = (program.dvs.input_shape[1], program.dvs.input_shape[2])
    if isinstance(source, (str, Path)):
        return open_input(source, size)
    several: Sequence[Any] = source if isinstance(source, Sequence) else [source]
    odd = [one for one in several if not isinstance(one, Events) and not hasattr(one, "take")]
    if odd or not several:
        found = f"{type(odd[0]).__name__}" if odd else "none"
        raise SettingError(f"input: expected Events, or a list of them, found {found}. Try read_events(path).")
    names = ["recording"] if len(several) == 1 else [f"recording {number}" for number in range(len(several))]
    return tuple(
        RecordingReel(one, name) if isinstance(one, Events) else one for one, name in zip(several, names, strict=True)
    )
