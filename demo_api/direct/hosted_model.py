"""The direct engine's model: in a process of its own, under the demo home's interpreter.

What the model, its libraries or its driver do to that process never reaches the server.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from demo_api.config import Settings
from demo_api.demo import command, home, run_folder
from demo_api.demo.run_folder import RunFolder
from demo_api.devices.lock import Device, DeviceBusy, DeviceLock, devices_of
from demo_api.devices.reset import Reset
from demo_api.devices.warm import end_waiting_child
from demo_api.direct.host.demo_api_host import protocol
from demo_api.direct.host.demo_api_host.context import context_for
from demo_api.direct.model import Completion, OnLost, OnText
from demo_api.direct.model_process import HOST, ModelProcess
from demo_api.errors import BadRequest, RunFailed, SetupError
from demo_api.messages import Question
from demo_api.process import tree
from demo_api.queue import new_id

logger = logging.getLogger(__name__)

_NO_DEVICE = "no device"
"""No device can have this name, so nobody ends the CPU's processes to clear up a device that was cut off."""


class HostedModel:
    """The demo home's model: llama.cpp for the CPU edition, tt-metal's own for a checkout.

    From ``load`` to ``close`` a device is locked, also against children of the demo engine.
    """

    def __init__(self, settings: Settings) -> None:
        self._is_cpu = settings.is_cpu_demo
        self.name = ""
        self.device: str | None = "CPU" if self._is_cpu else None
        self.slots = settings.slots if self._is_cpu else 1
        self.context = context_for(settings.max_seq_len, None)
        self._settings = settings
        self._process: ModelProcess | None = None
        self._opened = ExitStack()
        self._stopped = threading.Event()
        self._may_be_open = False  # an earlier process did not close the device

    def load(self, on_lost: OnLost) -> None:
        """Starts a process, and has it load the model and answer once.

        On a device, that answer compiles the kernels (minutes, if none is cached), so no client waits for that.
        """
        try:
            lock = None if self._is_cpu else self._opened.enter_context(self._lock_device())
            if self._may_be_open:
                self._reset(lock)
            self._take(self._start(lock, on_lost))
        except BaseException:
            self.close()
            raise

    def accept(self, question: Question) -> None:
        """Asks whether the model can answer it."""
        with self._loaded().asked({"accept": question_message(question)}) as (_, replies):
            _raise_error(next(replies))

    def complete(self, question: Question, on_text: OnText) -> Completion:
        """Has it answered. Once it is not wanted any more, what the process says meanwhile does not count."""
        process = self._loaded()
        stopped_at: int | None = None
        with process.asked({"answer": question_message(question)}) as (number, replies):
            try:
                for reply in replies:
                    if "text" not in reply:
                        break
                    if stopped_at is None and on_text(reply["text"], reply["tokens"]):
                        stopped_at = reply["tokens"]
                        process.send({"cancel": number})
            except BaseException:
                process.send({"cancel": number})
                raise
        _raise_error(reply)
        completion = Completion(**reply["done"])
        if stopped_at is None:
            return completion
        return replace(completion, finish_reason="cancelled", tokens_generated=stopped_at)

    def stop(self) -> None:
        """Interrupts the process, so that it closes its device."""
        self._stopped.set()
        if (process := self._process) is not None:
            process.stop()

    def hurry(self) -> None:
        """Cuts short the grace in which it may do that."""
        if (process := self._process) is not None:
            process.hurry()

    def close(self) -> None:
        """Ends the process; once, however often it is called."""
        process, self._process = self._process, None
        if process is not None:
            process.close()
            if process.left_in_order or self._is_cpu:
                process.folder.forget_prompts()
            else:
                # The folder stays as that of a run that was cut off, which tells the demo engine too.
                self._may_be_open = True
        self._opened.close()

    def _loaded(self) -> ModelProcess:
        if self._process is None:
            raise RunFailed("The model is not in memory.", code="internal_error", next_step="Send it again.")
        return self._process

    def _start(self, lock: DeviceLock | None, on_lost: OnLost) -> Mapping[str, Any]:
        """Starts the process. Returns what it says when it has loaded the model."""
        settings = self._settings
        variable, model = home.model_variable(settings)
        options = self._options(model)
        device = settings.devices[0]
        environment = command.home_environment(
            settings.inherited, device.environment, (variable, model), [settings.demo_home, HOST]
        )
        with _files():
            run_folder.prune(run_folder.existing(settings.runs_dir), keep=settings.keep_runs, days=settings.keep_days)
            folder = RunFolder.create(settings.runs_dir, new_id())
            folder.write([], command.plugin_config(_NO_DEVICE if self._is_cpu else device.name, folder.path.name))
            self._process = process = ModelProcess(
                [str(home.interpreter(settings)), "-u"],
                cwd=settings.demo_home,
                environment=environment,
                folder=folder,
                lock_fd=None if lock is None else lock.fd,
                max_output=settings.max_output,
                silence=settings.run_timeout,
                grace=settings.stop_grace,
                on_end=on_lost,
            )
        if self._stopped.is_set():
            process.stop()
        engine = "llama_cpp" if self._is_cpu else "tt_metal"
        return process.load(
            {
                "version": protocol.VERSION,
                "engine": engine,
                "options": options,
                "remove": [str(folder.prompts), str(folder.plugin_config)],
            }
        )

    def _options(self, model: str) -> dict[str, Any]:
        settings = self._settings
        common = {"max_seq_len": settings.max_seq_len, "top_k": command.TOP_K}
        if not self._is_cpu:
            return {**common, "demo_home": str(settings.demo_home)}
        file = str(home.gguf_file(settings))
        longest = home.context_length(file)
        return {**common, "file": file, "longest": longest, "name": home.model_name(model), "slots": self.slots}

    def _take(self, reply: Mapping[str, Any]) -> None:
        error = reply.get("error")
        if error is not None:
            kind = BadRequest if error["kind"] == "refused" else SetupError
            raise kind(error["message"], next_step=error["next_step"])
        ready = reply["ready"]
        if ready["version"] != protocol.VERSION:
            raise SetupError("The program was changed while it ran.", next_step="Restart the server.")
        self.name, self.device, self.context = ready["name"], ready["device"], ready["context"]

    def _lock_device(self) -> DeviceLock:
        """Takes the first of the server's devices, so that no run of the demo begins on it.

        Where the device is let go and taken again, whoever has it meanwhile may finish.

        Raises:
            SetupError: a run, or another server, has it.
        """
        settings, device = self._settings, devices_of(self._settings)[0]
        try:
            with _files():
                device.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                end_waiting_child(device, grace=settings.stop_grace)
                if device.has_child() and not device.has_server():
                    self._end_leftovers(device)
                return device.wait_for_lock(
                    seconds=0 if settings.warm_idle is None else settings.run_timeout,
                    given_up=self._stopped,
                    make_way=lambda: end_waiting_child(device, grace=settings.stop_grace),
                )
        except DeviceBusy:
            raise SetupError(
                f"The device {device.name!r} is in use by a run of the demo or by another server.",
                next_step="Wait for its end (`demo-api device status`), or stop the other server.",
            ) from None

    def _end_leftovers(self, device: Device) -> None:
        """Ends what servers that are gone have left on the device."""
        folders = run_folder.existing(self._settings.runs_dir)
        ids = {child for folder in folders if (child := folder.child_id(device.name)) is not None}
        left = tree.survivors(command.MARK, ids)
        logger.warning("ending %d processes that a lost server left: %s", len(left), left)
        self._may_be_open = not tree.end(left, grace=self._settings.stop_grace)

    def _reset(self, lock: DeviceLock | None) -> None:
        """Resets a device that may not have been closed, if there is a command for that.

        Raises:
            SetupError: it failed.
        """
        settings, device = self._settings, devices_of(self._settings)[0]
        if settings.reset_command is not None:
            logger.info("device %s: resetting", device.name)
            environment = {name: value for name, value in settings.inherited.items() if not name.startswith("DEMO_API")}
            problem = Reset(
                [each for each in (settings.reset_command, settings.reset_check) if each],
                mark=device.mark,
                timeout_s=settings.reset_timeout,
                environment={**environment, **device.environment},
                lock=lock.fd if lock else None,
            ).run()
            if problem is not None:
                raise SetupError(f"The device could not be reset: {problem}", next_step="Look at the device.")
        self._may_be_open = False


@contextmanager
def _files() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"The model's process cannot be started: {error}.", next_step="Look at --state-dir (DEMO_API_STATE_DIR)."
        ) from error


def question_message(question: Question) -> dict[str, Any]:
    """A question as the model's process is asked it."""
    request = question.request
    return {
        "prompt": request.prompt,
        "turns": [{"role": turn.role, "content": turn.content} for turn in question.turns],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature or 0.0,
        "top_p": request.top_p,
        "seed": request.seed,
    }


def _raise_error(reply: Mapping[str, Any]) -> None:
    error = reply.get("error")
    if error is None:
        return
    if error["kind"] == "refused":
        fields = {"field": error["field"]} if error["field"] else {}
        raise BadRequest(error["message"], next_step=error["next_step"], **fields)
    raise RunFailed(error["message"], code="internal_error", next_step=error["next_step"])
