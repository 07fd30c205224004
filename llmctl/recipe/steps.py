"""How a stage's tokens are made into steps: rows of a batch, which may grow, and the length of what attention sees, which may
too."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Growth:
    """A size that doubles from `first` to `last` while the first `tokens` are trained on, in phases of equal tokens."""

    first: int
    last: int
    tokens: int

    @property
    def doublings(self) -> int:
        return (max(1, self.last // self.first)).bit_length() - 1

    def at(self, tokens: int) -> int:
        """The size after `tokens` tokens."""
        if tokens >= self.tokens or not self.doublings:
            return self.last
        return self.first << (tokens * self.doublings // self.tokens)


@dataclass(frozen=True, slots=True)
class Steps:
    """Rows of `seq_len` tokens by step: `rows` in each, fewer while the batch grows. A function of the step alone, so that
    any step can be sought."""

    seq_len: int
    rows: int
    growth: Growth | None = None
    """Of the rows."""

    @property
    def phases(self) -> list[tuple[int, int, int]]:
        """(first step, first row, rows of a step), the last one without an end."""
        found, step, row = [], 0, 0
        if self.growth is not None:
            for doubling in range(self.growth.doublings):
                size = self.growth.first << doubling
                found.append((step, row, size))
                count = max(1, round(self.growth.tokens / self.growth.doublings / (size * self.seq_len)))
                step, row = step + count, row + count * size
        return [*found, (step, row, self.rows)]

    def rows_of(self, step: int) -> range:
        """Positions of the step's rows among all rows of the stage."""
        start, row, size = next(phase for phase in reversed(self.phases) if phase[0] <= step)
        first = row + (step - start) * size
        return range(first, first + size)

    def rows_before(self, step: int) -> int:
        """Rows of all steps before this one."""
        return self.rows_of(step).start

    def within(self, rows: int) -> int:
        """Whole steps that so many rows make."""
        start, row, size = next(phase for phase in reversed(self.phases) if phase[1] <= rows)
        return start + (rows - row) // size

    def within_tokens(self, tokens: int) -> int:
        """Whole steps that so many tokens make."""
        return self.within(tokens // self.seq_len)

    @property
    def fewest_rows(self) -> int:
        return self.phases[0][2]
