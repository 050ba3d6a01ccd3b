"""Several server processes on one port: gunicorn's master keeps them alive, uvicorn serves in each.

The master imports, reads and builds what all have in common, then they part; it opens no connection and runs no event
loop. Each process opens a runtime of its own, with an in-flight log of its own.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

import uvicorn
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

# The drivers are loaded here, once, and not in each process: all are needed.
import persistence.mongo.changes
import persistence.rabbit.queue
import persistence.redis.server
import persistence.timescale.ledger  # noqa: F401
from providers.prices import load_prices

from .announcement import announcement
from .app import Gateway
from .metrics.processes import child_exit, prepare_multiprocess
from .process_table import ProcessPlace, ProcessTable
from .server import LAST_WORDS_S, UNWINDING_S, Server, server_config
from .settings import Settings, SettingsError

HANG_S = 300
"""A process whose event loop stands still for so long is killed, and replaced."""
CLOSING_S = 30.0
"""For a process's own end, when no completion runs in it any more: jobs in hand (20 s), the ledger, its stores."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108  # signs of life are files: never on a disk that might be slow, or read-only
POLL_S = 0.05
METRICS_FOLDER = "metrics"
SAY_AGAIN_S = 1.0
_ENDINGS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})


def run_several(settings: Settings, listener: socket.socket, internal: socket.socket | None) -> int:
    """The exit code. Raises SettingsError where a process can't start."""
    application = _Application(settings, internal)
    load_prices()
    master = _Master(application, listener)
    logging.getLogger("gunicorn.error").addFilter(
        lambda _: application.table.refusal() is None
    )  # else one line says it all
    gc.collect()
    gc.freeze()  # what is here before they part is shared, and stays so: no process's collector touches it
    sys.stdout.flush()
    own = os.getpid()
    try:
        master.run()
    except SystemExit as end:
        if os.getpid() != own:
            raise  # a process that parted from here
        if (refusal := application.table.refusal()) is not None:
            raise SettingsError(refusal) from None
        return int(end.code or 0)
    return 0


class _Application(BaseApplication):
    """gunicorn's settings, of which an operator sees ours alone."""

    def __init__(self, settings: Settings, internal: socket.socket | None) -> None:
        self.settings = settings
        self.internal = internal
        self.table = ProcessTable(settings.MAX_WORKERS)
        super().__init__()

    def load_config(self) -> None:
        ending_s = self.settings.shutdown_timeout_s + LAST_WORDS_S + UNWINDING_S + CLOSING_S
        values = {
            "preload_app": True,
            "workers": self.settings.MAX_WORKERS,
            "worker_class": _Process,
            "timeout": HANG_S,
            "graceful_timeout": round(ending_s),
            "worker_tmp_dir": SHARED_MEMORY if Path(SHARED_MEMORY).is_dir() else None,
            "logger_class": _Logger,
            "control_socket_disable": True,
            "pre_fork": self._seat,
            "child_exit": self._unseat,
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> Gateway:
        prepare_multiprocess(self.settings.DATA_DIR / METRICS_FOLDER)
        return Gateway(self.settings, self.internal)

    def _seat(self, master: _Master, process: _Process) -> None:
        """The first free row: there are as many as processes."""
        taken = {other.row for other in master.WORKERS.values()}  # type: ignore[attr-defined]  # each is a _Process
        process.row = next(row for row in range(self.table.processes) if row not in taken)

    def _unseat(self, _: _Master, process: _Process) -> None:
        self.table.clear(process.row)
        child_exit(process.pid)


class _Process(UvicornWorker):  # type: ignore[misc]  # it tells no types
    """What serves: the same server as one that is alone."""

    row: int

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        logging.getLogger("uvicorn.error").propagate = True  # it was made to write by gunicorn's handlers
        self.config = server_config(
            self.app.settings, self.app.wsgi(), callback_notify=self.callback_notify, timeout_notify=self.timeout
        )

    async def _serve(self) -> None:
        gateway, table = self.app.wsgi(), self.app.table
        gateway.sit(ProcessPlace(table, self.row))
        server = _Child(self.config, gateway, self.app.settings, self.ppid)
        try:
            await server.serve(sockets=self.sockets)
        except SettingsError as error:
            table.refuse(str(error))
        except SystemExit:  # the log has said why
            pass
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)  # the next one could not start either: the master ends


class _Child(Server):
    """Ends with its master, also where that was killed."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, settings: Settings, master: int) -> None:
        super().__init__(config, gateway, settings, has_master=True)
        self._master = master

    async def on_tick(self, counter: int) -> bool:
        if os.getppid() != self._master:
            self.should_exit = True
        return await super().on_tick(counter)


class _Master(Arbiter):
    """Replaces a process that dies. It ends as one process alone does, and takes no other orders: its settings are read
    once, its listener is its own."""

    def __init__(self, application: _Application, listener: socket.socket) -> None:
        super().__init__(application)
        self.LISTENERS[:] = [listener]  # type: ignore[list-item]  # a plain socket does all that is asked of its own
        self._application = application
        self._port: int = listener.getsockname()[1]
        self._announced = False

    def init_signals(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, self.signal if number in _ENDINGS else signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, self.signal_chld)

    def handle_term(self) -> None:
        raise StopIteration

    handle_int = handle_quit = handle_hup = handle_term

    def manage_workers(self) -> None:
        super().manage_workers()
        if not self._announced and self._application.table.complete():
            self._announced = True
            sys.stdout.write(announcement(self._application.settings, self._port))
            sys.stdout.flush()

    def stop(self, graceful: bool = True) -> None:
        """Waits as long as the processes may take; a second signal makes them hurry."""
        self._application.table.end()
        for listener in self.LISTENERS:
            listener.close()
        self.LISTENERS.clear()
        order, said = signal.SIGTERM, -SAY_AGAIN_S
        until = time.monotonic() + self.cfg.graceful_timeout
        while self.WORKERS and (now := time.monotonic()) < until:
            if order is signal.SIGTERM and self._told_again():
                order, said, until = signal.SIGQUIT, -SAY_AGAIN_S, now + LAST_WORDS_S + UNWINDING_S + CLOSING_S
            if now - said >= SAY_AGAIN_S:  # one that has only just begun may have missed it
                self.kill_workers(order)
                said = now
            self._reap()
            time.sleep(POLL_S)
        self.kill_workers(signal.SIGKILL)
        self._reap()

    def _told_again(self) -> bool:
        with suppress(Empty):
            while True:
                if self.SIG_QUEUE.get_nowait() in _ENDINGS:
                    return True
        return False

    def _reap(self) -> None:
        with suppress(HaltServer):  # which a process that could not start raises: the master ends already
            self.reap_workers()


class _Logger(Logger):
    """What gunicorn says goes the way of all logs, from warnings on."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log.setLevel(logging.WARNING)
        self.error_log.propagate = True
