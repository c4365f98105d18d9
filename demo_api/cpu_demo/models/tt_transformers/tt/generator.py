"""The engine: llama.cpp's server, in this process.

A batch is run in two steps, as on the device. ``prefill`` reads all prompts and returns every user's first token;
``decode`` then returns every user's next token. All users take each step of the decode together, so the time from one
step to the next is the time of one iteration, whatever the lengths of the prompts.
"""

import importlib
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import NamedTuple

from models.tt_transformers.tt.tokenizer import Tokenizer

# As on a device, the engine's library comes with the imports. Where it is missing that is told when it is needed.
with suppress(ImportError):
    importlib.import_module("xllamacpp")

# How many tokens the engine reads between two looks at whether it was cancelled: about half a second's work.
READ_AT_ONCE = 256
# Enough to touch every weight once; a long prompt must not be read twice.
WARMUP_TOKENS = 8
# A Unix socket's path is 103 bytes at most on every system, and the socket's own name is part of it.
LONGEST_PARENT_PATH = 70


class Token(NamedTuple):
    """One step of one user.

    Attributes:
        text: what the token adds to the answer; "" too, where a character takes several tokens.
        at: when it arrived, on ``perf_counter``'s clock.
        stop: whether it is the end of the answer instead of a part of it.
    """

    text: str
    at: float
    stop: bool = False


class Generator:
    """A loaded model.

    Args:
        model_args: which model, and for how many users and tokens.
        device: an ExitStack that closes what was opened, whatever happens.
    """

    def __init__(self, model_args, device):
        self._server = self._failure = self._generation = None
        directory = _private_directory()
        device.callback(shutil.rmtree, directory, ignore_errors=True)
        address, key = str(directory / "engine.sock"), secrets.token_urlsafe(32)
        self._loading = Thread(target=self._load, args=(_params(model_args, address, key),), name="load")
        device.callback(self.close)
        self._loading.start()
        self._loading.join()
        if self._failure:
            raise RuntimeError(
                f"{model_args.path} could not be loaded ({self._failure}): is it complete, and is there enough memory?"
            )
        self.tokenizer = Tokenizer(address, key)
        device.callback(self.tokenizer.close)

    def warm_up(self, tokens):
        """Reads the beginning of a prompt, so that the model's file is in memory; returns the seconds that took."""
        started = perf_counter()
        self._start([tokens[:WARMUP_TOKENS]], max_tokens=1, cache_prompt=False)
        self._generation.wait()
        return perf_counter() - started

    def prefill(self, prompts, sampling, max_generated_tokens, stop_at_eos):
        """Reads all prompts and returns each one's first Token. ``decode`` has ``max_generated_tokens`` more."""
        self._start(prompts, max_tokens=1, cache_prompt=False)
        self._generation.wait()
        # All prompts are read by now: this time nothing but their last tokens is, by all users at once.
        max_tokens = 1 + max(1, max_generated_tokens)
        self._start(prompts, max_tokens=max_tokens, cache_prompt=True, ignore_eos=not stop_at_eos, **sampling)
        return self.decode()

    def decode(self):
        """Waits for the next Token of every user, and returns them. Who has stopped gets the last one again."""
        return self._generation.next_tokens()

    def close(self):
        """Stops what is being generated and frees the model."""
        if self._loading.ident:
            self._loading.join()
        self._stop()
        self._server = None

    def _load(self, params):
        """Runs in a thread of its own, where Ctrl-C cannot get between the two lines that belong together."""
        try:
            server = xllamacpp().Server(params)
            server.handle_metrics()  # an engine that is freed before it has begun to work would never end
            self._server = server
        except Exception as error:
            self._failure = error

    def _start(self, prompts, **request):
        self._stop()
        self._generation = Generation(self._server, prompts, request)
        self._generation.start()

    def _stop(self):
        if self._generation:
            self._generation.cancel()
            self._generation = None


class Generation:
    """One request to the engine, which answers all its prompts, in a thread that is always joined.

    The thread is no daemon: one that is inside a callback when the interpreter exits would abort the process.
    """

    def __init__(self, server, prompts, request):
        self._users = [_User() for _ in prompts]
        self._cancelled = False
        self._error = None
        request = {**request, "prompt": prompts, "stream": True, "timings_per_token": True, "return_progress": True}
        self._thread = Thread(target=self._run, args=(server, request), name="generation")

    def start(self):
        self._thread.start()

    def next_tokens(self):
        tokens = [user.next_token() for user in self._users]
        if self._error:
            raise RuntimeError(f"The engine failed: {self._error}")
        return tokens

    def wait(self):
        while not all(token.stop for token in self.next_tokens()):
            pass

    def cancel(self):
        self._cancelled = True
        if self._thread.ident:
            self._thread.join()

    def _run(self, server, request):
        try:
            server.handle_completions(request, self._receive)
        except Exception as error:
            self._error = self._error or error
        finally:
            for user in self._users:
                user.end()

    def _receive(self, chunk):
        """Takes one chunk from the engine; True cancels the request within one step."""
        try:
            if chunk and "error" in chunk:
                self._error = chunk["error"]["message"]
            elif chunk:  # the engine also says when it begins, with None
                self._users[chunk["choices"][0]["index"]].receive(chunk)
        except Exception as error:  # it would be swallowed
            self._error = error
        return self._cancelled or self._error is not None


class _User:
    """The tokens of one prompt, put in by the engine's thread and taken out by the demo's."""

    def __init__(self):
        self._tokens = SimpleQueue()
        self._received = 0
        self._last_at = perf_counter()
        self._stopped = None

    def next_token(self):
        if not self._stopped:
            token = self._tokens.get()
            self._stopped = token if token.stop else None
            return token
        return self._stopped

    def receive(self, chunk):
        choice, count = chunk["choices"][0], chunk["timings"]["predicted_n"]
        if choice["finish_reason"]:
            self._put(count - self._received, choice["text"], choice["finish_reason"] == "stop")
        elif choice["text"]:
            self._put(count - self._received, choice["text"], False)
        # Without a text it is progress, or a token of which only the next chunk tells whether it ended the answer.

    def end(self):
        self._tokens.put(Token("", self._last_at, stop=True))

    def _put(self, count, text, stop):
        """Tokens that arrive together, because they make up one character, share the time since the last ones."""
        now = perf_counter()
        for left in reversed(range(count)):
            at = now - left * (now - self._last_at) / count
            last = left == 0
            self._tokens.put(Token(text if last else "", at, stop and last))
        self._received += count
        self._last_at = now


def xllamacpp():
    """The module of the engine. Collecting the tests does not depend on it."""
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise RuntimeError(f"The CPU engine is missing ({error}): pip install 'demo-api[cpu]'") from None


def _params(model_args, address, key):
    params = xllamacpp().CommonParams()
    params.model.path = str(model_args.path)
    params.n_parallel = model_args.max_batch_size
    # One more than the demo counts: the token that the prefill generates takes a place too.
    params.n_ctx = model_args.max_batch_size * (model_args.max_seq_len + 1)
    params.kv_unified = False  # with a cache for each user, a batch's texts are the texts of its prompts alone
    params.n_batch = READ_AT_ONCE
    params.cpuparams_batch.n_threads = _usable_cpus()  # for the prefill, which more threads make faster
    params.cpuparams.n_threads = max(1, _usable_cpus() // 2)  # they hardly do that to the decode: see below
    params.fit_params = params.warmup = False
    params.cache_ram_mib = 0
    params.verbosity = -1
    # Its listener cannot be turned off: a socket in a private folder, and a secret too.
    params.hostnames, params.api_keys = [address], [key]
    params.ui = params.endpoint_slots = False
    params.endpoint_metrics = True  # what it is asked first
    return params


def _usable_cpus():
    """At most eight: more do not make a small model faster.

    The engine's threads wait for each other busily. Where other programs want the CPUs too, a decode with a thread on
    each of them was seen to take eight times as long, and one on half of them hardly longer than alone.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 8)


def _private_directory():
    """A new folder for the socket, which nobody else can enter, with a path that is short enough.

    Those of processes that were killed are removed: their names have the processes' numbers.
    """
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > LONGEST_PARENT_PATH:
        parent = "/tmp"  # noqa: S108 (mkdtemp makes a folder of our own in it)
    for left in Path(parent).glob("cpu-demo-*-*"):
        number = left.name.split("-")[2]
        if number.isdecimal() and not _runs(int(number)):
            shutil.rmtree(left, ignore_errors=True)  # of another user: it stays
    return Path(tempfile.mkdtemp(prefix=f"cpu-demo-{os.getpid()}-", dir=parent))


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
