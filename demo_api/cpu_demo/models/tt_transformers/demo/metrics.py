"""What a run took, and the lines that the demo ends with."""

from dataclasses import dataclass, field
from time import perf_counter

# The iterations whose times are shown by themselves, and what the demo calls them.
SHOWN = {1: "1st", 127: "128th", 1023: "1024th", 4095: "4096th"}


@dataclass
class Metrics:
    """Measured seconds.

    Attributes:
        users: how many users there were.
        warmup: the prefill's warmup.
        prefill: all prompts, until the last user had a first token.
        decode: each iteration; iteration 0 is reported as the compile time.
    """

    users: int
    warmup: float = 0.0
    prefill: float = 0.0
    decode: list = field(default_factory=list)
    _last_step: float = 0.0

    def start(self):
        """The prefill begins now."""
        self._last_step = perf_counter()

    def prefilled(self, tokens):
        """Every user has a first token."""
        self.prefill = self._step(tokens)

    def decoded(self, tokens):
        """Every user has a next token: one more iteration."""
        self.decode.append(self._step(tokens))

    def _step(self, tokens):
        """The seconds from the arrival of the last step's last token to that of this step's."""
        before, self._last_step = self._last_step, max(self._last_step, *(token.at for token in tokens))
        return self._last_step - before

    def iteration_line(self, iteration):
        """The progress that is logged after each iteration."""
        seconds = self.decode[iteration]
        rate = per_second(seconds)
        return (
            f"Iteration {iteration}: {1000 * seconds:.0f}ms @ {rate:.1f} tok/s/user "
            f"({self.users * rate:.1f} tok/s throughput)"
        )

    def lines(self):
        """The closing lines, word for word the demo's. Its time to first token is the prefill's time for each user."""
        steady = self.decode[1:]
        average = sum(steady) / len(steady) if steady else 0
        rate = per_second(average)
        yield ""
        yield "=== Performance metrics ==="
        for iteration, name in SHOWN.items():
            if iteration < len(self.decode) and self.decode[iteration] > 0:
                yield self._token_line(name, self.decode[iteration])
        yield "=="
        yield f"Prefill compile time: {round(self.warmup, 2)}s"
        yield f"Decode compile time: {round(self.decode[0], 2)}s"
        yield ""
        yield f"Average Time to First Token (TTFT): {round(self.prefill / self.users * 1000, 2)}ms"
        yield (
            f"Average speed: {round(average * 1000, 2)}ms @ {round(rate, 2)} tok/s/user "
            f"({round(self.users * rate, 2)} tok/s throughput)"
        )

    def _token_line(self, name, seconds):
        rate = per_second(seconds)
        return (
            f"{name} token decode time: {seconds * 1000:.2f}ms "
            f"[{round(rate, 2)} t/s/u, {round(rate * self.users, 2)} t/s]"
        )


def per_second(seconds):
    """How often something that takes ``seconds`` fits into one second; 0 where nothing was measured."""
    return 1 / seconds if seconds > 0 else 0
