"""``demo-api device``: shows, resets and clears the devices."""

from __future__ import annotations

import click

from demo_api.cli.options import flags_of
from demo_api.config import Settings
from demo_api.devices.lock import Device, devices_of
from demo_api.devices.recovery import DeviceRecovery
from demo_api.devices.reset import holders
from demo_api.devices.warm import end_waiting_child
from demo_api.errors import BadRequest, DeviceFailed, SetupError, ShuttingDown
from demo_api.process.stopping import stop_on_signals
from demo_api.queue import Ledger


@click.group()
def device() -> None:
    """Show, reset and clear devices."""


_NAME = click.argument("name", required=False)
_DEVICE_SETTINGS = ["state_dir", "database_url", "devices", "reset_command", "reset_check", "reset_timeout"]


@device.command()
@flags_of(["state_dir", "database_url", "devices"])
def status(**flags: str | None) -> None:
    """Print the state of every device, one line each."""
    settings = Settings.load(flags)
    ledger = Ledger(settings)
    for each in devices_of(settings):
        known = ledger.devices.get(each.name)
        child = "a warm child is waiting" if each.waiting() else "a child is using it"
        taken = f" ({child})" if each.has_child() else ""
        click.echo(f"{each.name}: {known.state}{taken}" + (f": {known.reason}" if known.reason else ""))


@device.command()
@_NAME
@flags_of(_DEVICE_SETTINGS)
def reset(name: str | None, **flags: str | None) -> None:
    """Reset an unused device with DEMO_API_RESET_COMMAND."""
    settings = Settings.load(flags)
    chosen = _device(settings, name)
    if not settings.reset_command:
        raise SetupError(
            "No reset command is set.",
            next_step="Set DEMO_API_RESET_COMMAND (--reset-command); for Tenstorrent, use `tt-smi -r`.",
        )
    devices = Ledger(settings).devices
    recovery = DeviceRecovery(devices, chosen, settings)
    stop_on_signals(recovery.stop, lambda: None)
    end_waiting_child(chosen, grace=settings.stop_grace)
    lock = chosen.try_lock()
    if lock is None:
        raise DeviceFailed(f"The device {chosen.name} is in use.", next_step="Wait for the run to end, or cancel it.")
    with lock:
        in_the_way = holders()
        if in_the_way:
            used_by = ", ".join(in_the_way)
            raise DeviceFailed(f"The device {chosen.name} is used by {used_by}.", next_step="Stop that program.")
        recovery.reset(lock)
    if recovery.is_stopped:
        raise ShuttingDown(f"The reset of {chosen.name} was interrupted.", next_step="Reset it before using it.")
    known = devices.get(chosen.name)
    if known.state != "free":
        raise DeviceFailed(f"The device {chosen.name} is {known.state}: {known.reason}")
    click.echo(f"{chosen.name}: free")


@device.command()
@_NAME
@flags_of(["state_dir", "database_url", "devices"])
def clear(name: str | None, **flags: str | None) -> None:
    """Mark a suspect device as healthy."""
    settings = Settings.load(flags)
    chosen = _device(settings, name)
    Ledger(settings).devices.set(chosen.name, "free")
    click.echo(f"{chosen.name}: free")


def _device(settings: Settings, name: str | None) -> Device:
    by_name = {each.name: each for each in devices_of(settings)}
    if name is None and len(by_name) == 1:
        (name,) = by_name
    if name not in by_name:
        raise BadRequest(
            f"There is no device {name}." if name else "There are several devices.",
            next_step=f"Name one of: {', '.join(by_name)}.",
        )
    return by_name[name]
