"""One request to llama.cpp's server, whose tokens arrive while they are asked for."""

from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import NamedTuple


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
