"""Start both sides' workers behind the sandbox on a leased device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner import exchange, sandbox
from runner import worker as workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

    from runner.account import Account
    from runner.exchange import Turn
    from runner.gpu import Lease
    from runner.records import Role, Script, Weather
    from runner.weather import Station


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts a side's worker behind the sandbox; `stack` ends it.

    `leftover_s`: see `exchange.Turn`; `station` looks at the machine around each batch.
    """

    account: Account
    lease: Lease
    stack: ExitStack
    scratch: Path
    leftover_s: Callable[[float], float] = lambda _limit_s: 0.0
    station: Station | None = None

    def start(self, role: Role, script: Script) -> Turn:
        """Start one side; it imports while the caller goes on."""
        account = self.account
        settings = account.job.settings
        box = sandbox.Box(
            isolation=account.job.isolation,
            bwrap=account.job.bwrap,
            models=account.job.mounts,
            readable=settings.readable,
            gpu_minor=self.lease.minor,
            gpu_uuid=self.lease.device.uuid,
            folder=self.scratch / role,
        )
        side = workers.start(
            role, box.prepare(script.text), settings.memory_limit(), self.lease.device.cores
        )
        self.stack.callback(account.keep_output, side)
        self.stack.enter_context(side)
        return exchange.Turn(
            side,
            account.keeper.images,
            settings.timeout_s,
            self.leftover_s,
            Around(self.station, side.pids) if self.station else exchange.Blind(),
        )


@dataclass(frozen=True, slots=True)
class Around:
    """Looks at the machine for one side, whose processes `pids` names."""

    station: Station
    pids: Callable[[], frozenset[int]]

    def look(self) -> None:
        """Look at everything now."""
        self.station.look()

    def between(self, start_s: float, end_s: float) -> Weather | None:
        """The weather from one moment to another on the monotonic clock."""
        return self.station.between(start_s, end_s, self.pids())
