"""llama.cpp as the direct engine's model, on any CPU: it answers many questions at once by continuous batching."""

from __future__ import annotations

import http.client
import importlib
import os
import secrets
import shutil
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from .context import check_fits, context_for
from .protocol import Completion, Failed, OnText, Question

READ_AT_ONCE = 256
"""Tokens that are read between two looks at whether a question is still wanted: about half a second's work."""

MOST_THREADS = 8

LONGEST_PARENT_PATH = 60
"""A Unix socket's path is 103 bytes at most on every system, and the folder's and the socket's names are part of it."""


class LlamaCpp:
    """A GGUF file, loaded by llama.cpp's own server in this process (xllamacpp).

    With a cache for each slot, an answer does not depend on what else is answered at the time: greedy answers are the
    demo's to the byte.

    Args:
        file: the GGUF file.
        name: the model's, as the demo calls it.
        slots: how many questions are answered at the same time.
        max_seq_len: ``DEMO_API_MAX_SEQ_LEN``.
        longest: tokens of the longest sequence that the model was made for; None where that is not known.
        top_k: of how many tokens one is sampled.
    """

    device: str | None = "CPU"

    def __init__(
        self, *, file: str, name: str, slots: int, max_seq_len: int | None, longest: int | None, top_k: int
    ) -> None:
        self.slots = slots
        self.name = name
        self.context = context_for(max_seq_len, longest)
        self._file = file
        self._top_k = top_k
        self._server: Any = None
        self._folder: Path | None = None
        self._key = secrets.token_urlsafe(32)

    def load(self) -> None:
        """Loads the model. xllamacpp keeps the interpreter's lock meanwhile."""
        # How busily its threads wait for each other, as in the CPU edition: read when the library is loaded.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        try:
            xllamacpp = importlib.import_module("xllamacpp")
        except ImportError as error:
            raise Failed(f"The CPU engine is missing: {error}.", "Run `pip install 'demo-api[cpu]'`.") from None
        # The CPU edition's: the folder that this process runs in has them.
        self._check_sampling = importlib.import_module("models.tt_transformers.tt.sampling").check_sampling
        self._tokenizer = importlib.import_module("models.tt_transformers.tt.tokenizer").Tokenizer
        self._folder = _private_folder()
        try:
            self._server = xllamacpp.Server(self._params(xllamacpp, _address(self._folder)))
            self._server.handle_metrics()  # a server that is freed before it has worked would never end
        except Exception as error:
            self.close()
            raise Failed(
                f"{self._file} could not be loaded ({error}).",
                "Check that the file is complete, and that there is enough memory.",
            ) from None

    def accept(self, question: Question) -> None:
        """Takes every conversation that fits: the template is the model's own."""
        check_fits(self._count_tokens(question), self.context)

    def complete(self, question: Question, on_text: OnText) -> Completion:
        """Answers a question in a slot of its own."""
        reply = _Reply(on_text)
        asked = {
            **self._sampling(question),
            "max_tokens": question.max_tokens,
            "cache_prompt": False,
            "stream": True,  # a call that does not stream cannot be cancelled
            "stream_options": {"include_usage": True},
            "return_progress": True,
            # Or an answer that is ended from here would have no figures.
            "timings_per_token": True,  # nosec B105
        }
        try:
            if question.turns:
                self._server.handle_chat_completions({"messages": question.turns, **asked}, reply.receive)
            else:
                self._server.handle_completions({"prompt": question.prompt, **asked}, reply.receive)
        except ValueError as error:  # some errors come so, others as a chunk
            reply.error = reply.error or {"message": str(error)}
        return reply.completion(strip=bool(question.turns))

    def close(self) -> bool:
        """Frees the model."""
        self._server = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        return True

    def _count_tokens(self, question: Question) -> int:
        """Of the prompt with its template. Neither can be had without a generation, but at the listener's socket."""
        if self._folder is None:
            raise Failed("The model is not in memory.")
        try:
            with closing(self._tokenizer(_address(self._folder), self._key)) as tokenizer:
                if question.turns:
                    _, tokens = tokenizer.encode_conversation(question.turns)
                else:
                    _, tokens = tokenizer.encode_prompt(question.prompt, instruct=False)
        except (OSError, http.client.HTTPException, AssertionError) as error:
            raise _failure(str(error)) from error
        return len(tokens)

    def _sampling(self, question: Question) -> dict[str, Any]:
        sampling: dict[str, Any] = self._check_sampling(
            {"temperature": question.temperature, "top_p": question.top_p, "top_k": self._top_k}
        )
        del sampling["seed"]  # the demo's fixed one; here who names none gets a random one
        return sampling if question.seed is None else {**sampling, "seed": question.seed}

    def _params(self, xllamacpp: Any, address: str) -> Any:
        params = xllamacpp.CommonParams()
        params.model.path = self._file
        params.n_parallel = self.slots
        params.n_ctx = self.slots * self.context
        params.kv_unified = False
        params.n_batch = READ_AT_ONCE
        params.cpuparams_batch.n_threads = usable_cpus()  # for the prefill, which more threads make faster
        # They hardly do that to the decode, and wait for each other busily: where other programs want the CPUs too, a
        # thread on each was seen to make it many times slower.
        params.cpuparams.n_threads = max(1, usable_cpus() // 2)
        params.fit_params = params.warmup = False
        params.cache_ram_mib = 0
        params.verbosity = -1
        # Its listener cannot be turned off: a socket in a folder that only we can enter, and a secret too.
        params.hostnames, params.api_keys = [address], [self._key]
        params.ui = params.endpoint_slots = False
        params.endpoint_metrics = True  # what it is asked first
        return params


class _Reply:
    """llama.cpp's reply to one question, chunk by chunk, in the thread that asks."""

    def __init__(self, on_text: OnText) -> None:
        self.error: dict[str, Any] | None = None
        self._on_text = on_text
        self._started = time.monotonic()
        self._first_after: float | None = None
        self._texts: list[str] = []
        self._finish: str | None = None
        self._timings: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._stopped = False
        self._failure: Exception | None = None

    def receive(self, chunk: dict[str, Any] | None) -> bool:
        """Takes one chunk. True cancels the question within one token."""
        try:
            self._take(chunk or {})
        except Exception as error:  # it would be swallowed
            self._failure = error
        return self._stopped or self.error is not None or self._failure is not None

    def _take(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            self.error = chunk["error"]
            return
        self._timings = chunk.get("timings") or self._timings
        self._usage = chunk.get("usage") or self._usage
        text = ""
        for choice in chunk.get("choices", ()):
            text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            self._finish = choice["finish_reason"] or self._finish
        if text:
            self._first_after = self._first_after or time.monotonic() - self._started
            self._texts.append(text)
        self._stopped = self._on_text(text, int(self._timings.get("predicted_n", 0))) or self._stopped

    def completion(self, *, strip: bool) -> Completion:
        """The completion that the chunks make.

        Raises:
            Failed: llama.cpp refused the prompt.
        """
        if self._failure is not None:
            raise self._failure
        if self.error is not None:
            raise _failure(self.error.get("message"))
        finish = "cancelled" if self._stopped and self._finish is None else self._finish or "length"
        text = "".join(self._texts)
        timings, first = self._timings, self._first_after
        predicted = int(timings.get("predicted_n", 0))
        return Completion(
            response=text.strip() if strip else text,
            tokens_generated=predicted - (finish == "stop" and predicted > 0),
            prompt_tokens=self._usage.get("prompt_tokens") or timings.get("prompt_n"),
            finish_reason=finish,
            ttft_ms=None if first is None else round(1000 * first, 2),
            prefill_seconds=_seconds(timings.get("prompt_ms")),
            decode_seconds=_seconds(timings.get("predicted_ms")),
            decode_tokens_per_second=round(timings["predicted_per_second"], 2) if predicted > 1 else None,
        )


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds / 1000, 3)


def _failure(reason: object) -> Failed:
    return Failed(f"The engine refused the prompt: {reason}", "Send another prompt, or look at the model's output.")


def _address(folder: Path) -> str:
    return str(folder / "engine.sock")


def _private_folder() -> Path:
    """A new folder for the listener's socket, which nobody else can enter, with a path that is short enough.

    Those of processes that were killed are removed: their names have the processes' numbers.
    """
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > LONGEST_PARENT_PATH:
        parent = "/tmp"  # noqa: S108 (mkdtemp makes a folder of our own in it) # nosec B108
    for left in Path(parent).glob("demo-api-direct-*-*"):
        number = left.name.split("-")[3]
        if number.isdecimal() and not _is_alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)  # of another user: it stays
    return Path(tempfile.mkdtemp(prefix=f"demo-api-direct-{os.getpid()}-", dir=parent))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def usable_cpus() -> int:
    """As many threads as are worth it for a small model."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST_THREADS)
