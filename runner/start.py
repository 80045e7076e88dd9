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
    from runner.records import Role, Script


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts a side's worker behind the sandbox; `stack` ends it.

    `leftover_s`: see `exchange.Turn`.
    """

    account: Account
    lease: Lease
    stack: ExitStack
    scratch: Path
    leftover_s: Callable[[float], float] = lambda _limit_s: 0.0

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
        side = workers.start(role, box.prepare(script.text), settings.memory_limit())
        self.stack.callback(account.keep_output, side)
        self.stack.enter_context(side)
        return exchange.Turn(side, account.keeper.images, settings.timeout_s, self.leftover_s)
