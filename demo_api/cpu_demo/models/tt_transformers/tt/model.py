"""The loaded model: llama.cpp's server, in this process."""

import importlib
import os
import secrets
import shutil
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread
from weakref import finalize

from models.tt_transformers.tt.generation import Generation
from models.tt_transformers.tt.model_config import ModelArgs
from models.tt_transformers.tt.tokenizer import Tokenizer

# The engine's threads wait for each other many times for each token. By default they do so busily, and where other
# programs want the CPUs too, that takes the time that those leave. This is some 20 us; read when the library is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# As on a device, the engine's library comes with the imports. Where it is missing that is told when it is needed.
with suppress(ImportError):
    importlib.import_module("xllamacpp")

# How many tokens the engine reads between two looks at whether it was cancelled: about half a second's work.
READ_AT_ONCE = 256
# A Unix socket's path is 103 bytes at most on every system, and the socket's own name is part of it.
LONGEST_PARENT_PATH = 70


def create_tt_model(mesh_device, max_batch_size, max_seq_len):
    """Loads the model. Returns its arguments and the model; on a device its cache and its weights come with them."""
    model_args = ModelArgs(max_batch_size, max_seq_len)
    return model_args, Model(model_args, mesh_device), None, None


class Model:
    """The weights, and a cache for each user. What it opened is closed with the device, or when nobody has it any more.

    Args:
        model_args: which model, and for how many users and tokens.
        device: an ExitStack that is closed whatever happens.
    """

    def __init__(self, model_args, device):
        opened = ExitStack()
        device.callback(finalize(self, opened.close))
        directory = _private_directory()
        opened.callback(shutil.rmtree, directory, ignore_errors=True)
        address, key = str(directory / "engine.sock"), secrets.token_urlsafe(32)
        self._engine = _Engine(_params(model_args, address, key))
        opened.callback(self._engine.close)
        self._engine.load(model_args.path)
        self.tokenizer = Tokenizer(address, key)
        opened.callback(self.tokenizer.close)

    def start(self, prompts, **request):
        """Starts to generate for these prompts, lists of tokens, and returns the Generation."""
        return self._engine.start(prompts, request)

    def stop(self):
        """Stops what is being generated."""
        self._engine.stop()


class _Engine:
    """llama.cpp's server and what it generates. It knows no Model, which could not be given up otherwise."""

    def __init__(self, params):
        self._server = self._failure = self._generation = None
        # In a thread of its own Ctrl-C cannot get between two lines that belong together.
        self._loading = Thread(target=self._load, args=(params,), name="load")

    def load(self, path):
        self._loading.start()
        self._loading.join()
        if self._failure:
            raise RuntimeError(
                f"{path} could not be loaded ({self._failure}): is it complete, and is there enough memory?"
            )

    def start(self, prompts, request):
        self.stop()
        self._generation = Generation(self._server, prompts, request)
        self._generation.start()
        return self._generation

    def stop(self):
        if self._generation:
            self._generation.cancel()
            self._generation = None

    def close(self):
        if self._loading.ident:
            self._loading.join()
        self.stop()
        self._server = None

    def _load(self, params):
        try:
            server = xllamacpp().Server(params)
            server.handle_metrics()  # an engine that is freed before it has begun to work would never end
            self._server = server
        except Exception as error:
            self._failure = error


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
