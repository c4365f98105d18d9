"""``demo-api device``: shows, resets and clears the devices."""

from __future__ import annotations

import threading
import time

import click

from demo_api.cli.options import flags_of
from demo_api.config import Settings
from demo_api.devices.lock import Device, devices_of
from demo_api.devices.recovery import DeviceRecovery
from demo_api.devices.reset import holders
from demo_api.devices.warm import end_waiting_child
from demo_api.errors import BadRequest, DeviceFailed, SetupError, ShuttingDown
from demo_api.messages.health import OUT_OF_SERVICE
from demo_api.process.stopping import stop_on_signals
from demo_api.queue import Ledger


@click.group()
def device() -> None:
    """Show, drain, reset and clear devices."""


_LOOK_SECONDS = 0.2

_NAME = click.argument("name", required=False)
_OF_A_NAME = ["state_dir", "database_url", "devices"]
_DEVICE_SETTINGS = [*_OF_A_NAME, "reset_command", "reset_check", "reset_timeout"]


@device.command()
@flags_of(_OF_A_NAME)
def status(**flags: str | None) -> None:
    """Print the state of every device, one line each."""
    settings = Settings.load(flags)
    ledger = Ledger(settings)
    for each in devices_of(settings):
        known = ledger.devices.get(each.name)
        child = "a warm child is waiting" if each.waiting() else "a child is using it"
        taken = f" ({child})" if each.has_child() else ""
        click.echo(f"{each.name}: {known.shown}{taken}" + (f": {known.reason}" if known.reason else ""))


@device.command()
@_NAME
@flags_of(_OF_A_NAME)
def drain(name: str | None, **flags: str | None) -> None:
    """Let a device, or NODE/DEVICE of another host, take no further run, and wait until nothing runs on it."""
    settings = Settings.load(flags)
    ledger = Ledger(settings)
    chosen = _chosen(settings, ledger, name)
    ledger.devices.drain(chosen)
    stopped = threading.Event()
    stop_on_signals(stopped.set, lambda: None)
    while _is_used(settings, ledger, chosen):
        if stopped.wait(_LOOK_SECONDS):
            raise ShuttingDown(
                f"{chosen} takes no further run, but one still runs on it.",
                next_step="`demo-api device status`, or `demo-api status` of other hosts, shows when it has ended.",
            )
    click.echo(f"{chosen}: drained")


@device.command()
@_NAME
@flags_of(_OF_A_NAME)
def resume(name: str | None, **flags: str | None) -> None:
    """Let a drained device, or NODE/DEVICE of another host, take runs again."""
    settings = Settings.load(flags)
    ledger = Ledger(settings)
    chosen = _chosen(settings, ledger, name)
    ledger.devices.resume(chosen)
    click.echo(f"{chosen}: {ledger.devices.get(chosen).shown}")


@device.command()
@_NAME
@flags_of(_DEVICE_SETTINGS)
def reset(name: str | None, **flags: str | None) -> None:
    """Reset an unused device with DEMO_API_RESET_COMMAND, or NODE/DEVICE with its worker's."""
    settings = Settings.load(flags)
    if name is not None and "/" in name:
        _reset_elsewhere(settings, name)
        return
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
    click.echo(f"{chosen.name}: {known.shown}")


@device.command()
@_NAME
@flags_of(_OF_A_NAME)
def clear(name: str | None, **flags: str | None) -> None:
    """Mark a suspect device as healthy; NODE/DEVICE is one of another host."""
    settings = Settings.load(flags)
    ledger = Ledger(settings)
    chosen = _chosen(settings, ledger, name)
    ledger.devices.set(chosen, "free")
    click.echo(f"{chosen}: {ledger.devices.get(chosen).shown}")


def _reset_elsewhere(settings: Settings, name: str) -> None:
    """Marks the device as suspect: its worker resets such a device, when nobody uses it."""
    ledger = Ledger(settings)
    devices, chosen, stopped = ledger.devices, _known(ledger, name), threading.Event()
    devices.set(chosen, "suspect", "A reset was asked for.")
    stop_on_signals(stopped.set, lambda: None)
    deadline = time.monotonic() + settings.reset_timeout
    while (known := devices.get(chosen)).state not in ("free", "failed") and time.monotonic() < deadline:
        if stopped.wait(_LOOK_SECONDS):
            raise ShuttingDown("The reset goes on without this command.", next_step="`demo-api status` shows its end.")
    if known.state != "free":
        raise DeviceFailed(
            f"The device {chosen} is {known.state}: {known.reason}",
            next_step="Look at its worker: whether it has a reset command, and who uses the device.",
        )
    click.echo(f"{chosen}: {known.shown}")


def _chosen(settings: Settings, ledger: Ledger, name: str | None) -> str:
    """The name of one of this host's devices, or of another's that a worker has."""
    return _known(ledger, name) if name is not None and "/" in name else _device(settings, name).name


def _is_used(settings: Settings, ledger: Ledger, name: str) -> bool:
    """Whether a child uses the device. Of a device whose worker is gone, none does that anybody waits for."""
    if "/" not in name:
        return _device(settings, name).has_child() or bool(ledger.queue.batches(name, "open"))
    devices = [
        device
        for worker in ledger.workers.live()
        for device in worker.devices
        if f"{worker.node}/{device['name']}" == name
    ]
    return any(device["state"] not in OUT_OF_SERVICE or device["warm"] != "off" for device in devices)


def _known(ledger: Ledger, name: str) -> str:
    """The name, if a worker that lives has this device. Raises BadRequest if none has."""
    known = [f"{worker.node}/{device['name']}" for worker in ledger.workers.live() for device in worker.devices]
    if name not in known:
        there = ", ".join(sorted(set(known))) or "none, because no worker is connected"
        raise BadRequest(f"There is no device {name}.", next_step=f"Name one of: {there}.")
    return name


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
