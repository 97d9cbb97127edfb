"""Correction records read in plain Python: deflate streams of encoders other than classic zlib.

The native kernel makes and reads these records (`docs/deflate.md` describes them). This is a
second decoder, written to be read: for machines without a compiler, for `contrib/unpack.py`, which
loads this file from wherever it lies, and as a check on the first. It needs the standard library
alone and takes up to a minute for a large screenshot. Formats: RFC 1951 (deflate).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_EVEN, _ONE_BITS, _SLOWEST, _SPARED = 1 << 21, 22, 255, 4
_LEAST, _MOST = 1 << _ONE_BITS - 16, (1 << _ONE_BITS) - (1 << _ONE_BITS - 16)
_RATES = [(2 << 16) // (2 * seen + 3) for seen in range(_SLOWEST + 1)]

_STORED, _FIXED, _DYNAMIC = 0, 1, 2
_LAZY, _MEDIUM = 0, 1
_LONGEST, _RESERVE = 258, 262
_LITERALS, _DISTANCES, _RUNS, _END = 286, 30, 19, 256
_RUN_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
_RUN_EXTRA = {16: 2, 17: 3, 18: 7}


def _steps(first: int, extras: Sequence[int]) -> tuple[list[int], list[int]]:
    """The first value of each code and its extra bits (section 3.2.5)."""
    firsts = []
    for extra in extras:
        firsts.append(first)
        first += 1 << extra
    return firsts, list(extras)


_LENGTH_FIRST, _LENGTH_EXTRA = _steps(3, [0] * 8 + [i // 4 for i in range(4, 24)])
_LENGTH_FIRST, _LENGTH_EXTRA = [*_LENGTH_FIRST, 258], [*_LENGTH_EXTRA, 0]
_DISTANCE_FIRST, _DISTANCE_EXTRA = _steps(1, [0, 0, *(i // 2 for i in range(28))])
_LENGTH_CODE = [max(c for c in range(29) if _LENGTH_FIRST[c] <= n) for n in range(3, 259)]

Chance = list[int]
Match = tuple[int, int]
"""Length (0: none) and distance."""


def apply(record: bytes, raw: bytes) -> bytes:
    """The deflate stream of `raw` that `record` was made of.

    ValueError when the record is damaged in a way that shows; otherwise a damaged one gives a
    wrong stream.
    """
    try:
        return _Stream(record, raw).read()
    except (IndexError, KeyError) as error:
        raise ValueError("damaged correction record") from error


def _chances(*shape: int) -> list[Chance]:
    """A flat list of `shape` fresh contexts: [probability of a 1 in 2^-22, bits seen]."""
    count = 1
    for size in shape:
        count *= size
    return [[_EVEN, 0] for _ in range(count)]


class _Numbers:
    """Contexts of a number: how many bits it has, and the two bits behind its first one."""

    def __init__(self) -> None:
        self.length, self.first = _chances(32), _chances(32, 4)


class _Coder:
    """An adaptive binary range decoder."""

    def __init__(self, record: bytes) -> None:
        self.record, self.at = record, 0
        self.range, self.code = 0xFFFFFFFF, 0
        for _ in range(5):
            self.code = (self.code << 8 | self._byte()) & 0xFFFFFFFF

    def _byte(self) -> int:
        self.at += 1
        if self.at > len(self.record):
            if self.at > len(self.record) + _SPARED:
                raise ValueError("damaged correction record: it ends too early")
            return 0
        return self.record[self.at - 1]

    def _renew(self) -> None:
        while self.range < 1 << 24:
            self.range = self.range << 8 & 0xFFFFFFFF
            self.code = (self.code << 8 | self._byte()) & 0xFFFFFFFF

    def bit(self, chance: Chance) -> int:
        one, seen = chance
        bound = self.range * min(max(one, _LEAST), _MOST) >> _ONE_BITS
        if self.code < bound:
            self.range = bound
            chance[0] = one + (((1 << _ONE_BITS) - one) * _RATES[seen] >> 16)
            bit = 1
        else:
            self.code -= bound
            self.range -= bound
            chance[0] = one - (one * _RATES[seen] >> 16)
            bit = 0
        if seen < _SLOWEST:
            chance[1] = seen + 1
        if self.range < 1 << 24:
            self._renew()
        return bit

    def flat(self, bits: int) -> int:
        value = 0
        for _ in range(bits):
            self.range >>= 1
            bit = self.code >= self.range
            self.code -= self.range if bit else 0
            value = value << 1 | bit
            self._renew()
        return value

    def tree(self, chances: Sequence[Chance], bits: int) -> int:
        node = 1
        for _ in range(bits):
            node = node << 1 | self.bit(chances[node])
        return node - (1 << bits)

    def number(self, chances: _Numbers) -> int:
        bits, value = 0, 1
        while bits < 31 and self.bit(chances.length[bits]):
            bits += 1
        for _ in range(min(bits, 2)):
            value = value << 1 | self.bit(chances.first[4 * bits + value])
        rest = max(bits - 2, 0)
        return (value << rest | self.flat(rest)) - 1


class _Model:
    """The numbers at the front of a record; `fsmount/codec/kernel/model.h` says what they mean."""

    def __init__(self, coder: _Coder) -> None:
        chances = _Numbers()
        numbers = [coder.number(chances) & 0xFFFF for _ in range(17)]
        self.kind, self.hashed, self.hash_bits, self.least = numbers[:4]
        self.chain, self.good, self.good_chain, self.group = numbers[4:8]
        self.lazy, self.nice, self.far, self.reach = numbers[8:12]
        self.insert, self.insert_end, self.unseen, self.heap, self.joined = numbers[12:]
        if not (
            self.kind <= _MEDIUM
            and self.hashed in (3, 4)
            and 8 <= self.hash_bits <= 24
            and 3 <= self.least <= _LONGEST
            and 1 <= self.good_chain <= self.chain <= 4096
            and 1 <= self.group <= 8
            and self.reach <= 32768
            and self.insert_end <= 2
            and self.unseen <= 2
            and self.heap <= 1
            and self.joined <= 1
        ):
            raise ValueError("damaged correction record: no such model")

    def hash(self, at: bytes) -> int:
        """The hash of the first bytes of `at`."""
        mask = (1 << self.hash_bits) - 1
        if self.hashed == 4:
            return (int.from_bytes(at[:4], "little") * 2654435761 & 0xFFFFFFFF) >> 16 & mask
        shift = (self.hash_bits + 2) // 3
        return (at[0] << 2 * shift ^ at[1] << shift ^ at[2]) & mask


class _Guesser:
    """What an encoder with the model's numbers would do next."""

    def __init__(self, model: _Model, raw: bytes) -> None:
        self.model, self.raw = model, raw
        self.heads: dict[int, int] = {}
        self.links: dict[int, int] = {}
        self.filled = 0
        self.ahead: tuple[int, Match] | None = None

    def guess(self, position: int) -> tuple[Match, bool]:
        """The match at `position`, and whether it is a literal because of one behind it."""
        return (self._medium if self.model.kind == _MEDIUM else self._by_lazy)(position)

    def learn(self, position: int, length: int) -> None:
        """`length` bytes (1: a literal) were taken at once."""
        self._enter(position, length)
        if self.ahead and self.ahead[0] != position + length:
            self.ahead = None

    def candidates(self, position: int) -> list[int]:
        """Earlier positions with the same hash, newest first, as far as they are seen."""
        found: list[int] = []
        before = self.links.get(position)
        while before is not None and position - before <= self.model.reach:
            if self.model.unseen and before & (0xFFFF if self.model.unseen == 2 else -1) == 0:
                break
            found.append(before)
            if len(found) == 1 << 15:
                break
            before = self.links.get(before)
        return found

    def equal(self, a: int, b: int, most: int) -> int:
        """How many bytes are the same at two positions."""
        raw = self.raw
        x = int.from_bytes(raw[a : a + most], "little") ^ int.from_bytes(
            raw[b : b + most], "little"
        )
        return most if x == 0 else (x & -x).bit_length() - 1 >> 3

    def _fill(self, end: int) -> None:
        end = min(end, len(self.raw) - self.model.hashed + 1)
        for position in range(self.filled, end):
            value = self.model.hash(self.raw[position : position + 4])
            before = self.heads.get(value)
            if before is not None:
                self.links[position] = before
            self.heads[value] = position
        self.filled = max(self.filled, end)

    def _enter(self, position: int, length: int) -> None:
        model = self.model
        self._fill(position + 1)
        if length > model.insert and length > model.insert_end:
            self.filled = max(self.filled, position + length - model.insert_end)

    def _search(self, position: int, held: int) -> Match:
        model, raw = self.model, self.raw
        left = len(raw) - position
        if left < model.hashed:
            return 0, 0
        self._fill(position + 1)
        most, length = min(left, _LONGEST), max(held, 2)
        if length >= most:
            return 0, 0
        budget = model.good_chain if held >= model.good else model.chain
        spared, found, distance = 0, 0, 0
        at, start, end = position, raw[position : position + 2], raw[position + length - 1 :][:2]
        while True:
            if spared == 0:
                if budget == 0:
                    break
                budget -= 1
            spared = spared - 1 if spared else model.group - 1
            before = self.links.get(at)
            if before is None or position - before > model.reach:
                break
            if model.unseen and before & (0xFFFF if model.unseen == 2 else -1) == 0:
                break
            at = before
            if raw[at + length - 1 : at + length + 1] != end:
                continue
            spared = 0
            if raw[at : at + 2] != start:
                continue
            equal = self.equal(position, at, most)
            if equal > length:
                length = found = equal
                distance = position - at
                end = raw[position + length - 1 : position + length + 1]
                if equal >= min(model.nice, most):
                    break
        if found < model.least or (found == 3 and distance > model.far):
            return 0, distance
        return found, distance

    def _look(self, position: int) -> Match:
        if self.ahead and self.ahead[0] == position:
            return self.ahead[1]
        return self._search(position, 0)

    def _by_lazy(self, position: int) -> tuple[Match, bool]:
        here = self._look(position)
        self.ahead = None
        if here[0] and here[0] < self.model.lazy and position + 1 < len(self.raw):
            behind = self._search(position + 1, here[0])
            if behind[0] > here[0]:
                self.ahead = position + 1, behind
                return (0, 0), True
        return here, False

    def _medium(self, position: int) -> tuple[Match, bool]:
        here = self._look(position)
        deferred = False
        self.ahead = None
        while True:
            start = position + max(here[0], 1)
            if start >= len(self.raw) or len(self.raw) - position <= _RESERVE:
                return here, deferred
            self._enter(position, start - position)
            length, distance = self._search(start, 0)
            moved = self._moved_back(position, start, (length, distance)) if here[0] else 0
            if moved and here[0] - moved <= 1:
                length += moved
                if here[0] == moved:
                    here = length, distance
                    continue
                here, deferred, start = (0, 0), True, position + 1
            self.ahead = start, (length, distance)
            return here, deferred

    def _moved_back(self, position: int, start: int, match: Match) -> int:
        length, distance = match
        moved, limit, raw = 0, max(start - self.model.reach, 0), self.raw
        while (
            length
            and moved < start - position
            and start - moved > limit
            and length + moved < 256
            and start - moved - distance > 1
            and raw[start - moved - 1] == raw[start - moved - 1 - distance]
        ):
            moved += 1
        return moved


class _Bits:
    """Bits, lowest first."""

    def __init__(self) -> None:
        self.bytes, self.hold, self.count = bytearray(), 0, 0

    def put(self, value: int, bits: int) -> None:
        self.hold |= value << self.count
        self.count += bits
        whole = self.count >> 3
        self.bytes += (self.hold & (1 << 8 * whole) - 1).to_bytes(whole, "little")
        self.hold >>= 8 * whole
        self.count &= 7


def _codes(lengths: Sequence[int]) -> list[int]:
    """The canonical codes of these lengths, bits reversed (section 3.2.2)."""
    code, codes = 0, [0] * len(lengths)
    for bits in range(1, 16):
        for symbol, length in enumerate(lengths):
            if length == bits:
                codes[symbol] = int(f"{code & (1 << bits) - 1:0{bits}b}"[::-1], 2)
                code += 1
        code <<= 1
    return codes


def _sorted_lengths(frequency: Sequence[int], longest: int) -> list[int]:
    """Code lengths by two queues, the rarest symbols longest; limited as miniz does it."""
    lengths = [0] * len(frequency)
    symbols = sorted((n, symbol) for symbol, n in enumerate(frequency) if n)
    if not symbols:
        return lengths
    weights = [n for n, _ in symbols]
    leaf, pair, above = 0, len(symbols), {}
    for top in range(len(symbols), 2 * len(symbols) - 1):
        total = 0
        for _ in range(2):
            is_leaf = leaf < len(symbols) and (pair == top or weights[leaf] <= weights[pair])
            taken = leaf if is_leaf else pair
            leaf, pair = leaf + is_leaf, pair + (not is_leaf)
            above[taken] = top
            total += weights[taken]
        weights.append(total)
    depths = [0] * len(weights)
    depths[-1] = int(len(symbols) == 1)
    for node in reversed(range(len(weights) - 1)):
        depths[node] = depths[above[node]] + 1
    per_length = [0] * (longest + 2)
    for depth in depths[: len(symbols)]:
        per_length[min(depth, longest)] += 1
    total = sum(n << longest - bits for bits, n in enumerate(per_length[: longest + 1]) if bits)
    while total > 1 << longest and len(symbols) > 1:
        per_length[longest] -= 1
        bits = longest - 1
        while bits and not per_length[bits]:
            bits -= 1
        if not bits:
            break
        per_length[bits] -= 1
        per_length[bits + 1] += 2
        total -= 1
    rarest = iter(symbols)
    for bits in range(longest, 0, -1):
        for _ in range(per_length[bits]):
            lengths[next(rarest)[1]] = bits
    return lengths


def _heap_lengths(frequency: Sequence[int], longest: int) -> list[int]:
    """Code lengths by zlib's heap, with its ties: by frequency, then depth, last in first."""
    count = len(frequency)
    heap = [(0, 0, 0)] + [(n, 0, symbol) for symbol, n in enumerate(frequency) if n]
    last = max((symbol for _, _, symbol in heap[1:]), default=-1)
    while len(heap) < 3:
        forced, last = (last + 1, last + 1) if last < 2 else (0, last)
        heap.append((1, 0, forced))

    def sift(hole: int, item: tuple[int, int, int]) -> None:
        while (child := 2 * hole) < len(heap):
            if child + 1 < len(heap) and heap[child + 1][:2] <= heap[child][:2]:
                child += 1
            if item[:2] <= heap[child][:2]:
                break
            heap[hole] = heap[child]
            hole = child
        heap[hole] = item

    for at in range((len(heap) - 1) // 2, 0, -1):
        sift(at, heap[at])
    order: list[int] = []
    above: dict[int, int] = {}
    node = count
    while len(heap) > 2:
        first, item = heap[1], heap.pop()
        sift(1, item)
        second = heap[1]
        order += first[2], second[2]
        above[first[2]] = above[second[2]] = node
        sift(1, (first[0] + second[0], max(first[1], second[1]) + 1, node))
        node += 1
    depths, lengths, per_length, overflow = {node - 1: 0}, [0] * count, [0] * (longest + 1), 0
    for child in reversed(order):
        bits = depths[above[child]] + 1
        overflow += bits > longest
        depths[child] = bits = min(bits, longest)
        if child < count:
            lengths[child] = bits
            per_length[bits] += 1
    if overflow:
        while overflow > 0:
            bits = longest - 1
            while not per_length[bits]:
                bits -= 1
            per_length[bits] -= 1
            per_length[bits + 1] += 2
            per_length[longest] -= 1
            overflow -= 2
        symbols = (one for one in order if one < count)
        for bits in range(longest, 0, -1):
            for _ in range(per_length[bits]):
                lengths[next(symbols)] = bits
    return lengths


class _Headers:
    """What stands in front of a dynamic block (section 3.2.7), as far as it is not as expected."""

    def __init__(self, coder: _Coder, model: _Model) -> None:
        self.coder, self.model = coder, model
        self.lengths_same, self.op_same, self.run_same, self.run_count_same = _chances(4)
        self.counts_same = _chances(2)
        self.lengths = [_chances(16) for _ in range(16)]
        self.ops = _chances(4)
        self.op_lengths = [_chances(256) for _ in range(4)]
        self.run = [_chances(8) for _ in range(8)]

    def write(
        self, literals: Sequence[int], distances: Sequence[int], out: _Bits
    ) -> tuple[list[int], list[int]]:
        """Write the header of a block of these frequencies; the lengths of its two codes."""
        coder = self.coder
        lengths = self._expected(literals, 15) + self._expected(distances, 15)
        if not coder.bit(self.lengths_same):
            lengths = [coder.tree(self.lengths[length], 4) for length in lengths]
        ours, far = lengths[:_LITERALS], lengths[_LITERALS:]
        literal_count = self._count(self.counts_same[0], ours, 257, _LITERALS, 5)
        distance_count = self._count(self.counts_same[1], far, 1, _DISTANCES, 5)
        joined = ours[:literal_count] + far[:distance_count]
        ops = self._ops(joined, literal_count)
        frequency = [0] * _RUNS
        for symbol, _ in ops:
            frequency[symbol] += 1
        run = self._expected(frequency, 7)
        if not coder.bit(self.run_same):
            run = [coder.tree(self.run[length], 3) for length in run]
        ordered = [run[symbol] for symbol in _RUN_ORDER]
        run_count = self._count(self.run_count_same, ordered, 4, _RUNS, 4)
        out.put(literal_count - 257, 5)
        out.put(distance_count - 1, 5)
        out.put(run_count - 4, 4)
        for length in ordered[:run_count]:
            out.put(length, 3)
        codes = _codes(run)
        for symbol, length in ops:
            out.put(codes[symbol], run[symbol])
            if symbol > 15:
                out.put(length - (11 if symbol == 18 else 3), _RUN_EXTRA[symbol])
        return joined[:literal_count], far[:distance_count]

    def _expected(self, frequency: Sequence[int], longest: int) -> list[int]:
        if not self.model.heap:
            return _sorted_lengths(frequency, longest)
        shift = 0
        while sum(frequency) >> shift > 0xFFFF - _LITERALS:
            shift += 1
        return _heap_lengths([(n >> shift) + bool(n and shift) for n in frequency], longest)

    def _count(
        self, chance: Chance, lengths: Sequence[int], least: int, most: int, bits: int
    ) -> int:
        needed = most
        while needed > least and lengths[needed - 1] == 0:
            needed -= 1
        if self.coder.bit(chance):
            return needed
        return min(self.coder.flat(bits) + least, most)

    def _ops(self, lengths: Sequence[int], border: int) -> list[tuple[int, int]]:
        """(symbol of the run code, how many lengths it stands for) until all are written."""
        coder, ops, at = self.coder, [], 0
        while at < len(lengths):
            symbol, length = self._longest_run(lengths, at, border)
            if not coder.bit(self.op_same):
                kind = coder.tree(self.ops, 2)
                symbol, length = lengths[at], 1
                if kind:
                    symbol, length = kind + 15, coder.tree(self.op_lengths[kind], 8)
                    least, most = ((0, 0), (3, 6), (3, 10), (11, 138))[kind]
                    if not least <= length <= min(most, len(lengths) - at) or at + kind == 1:
                        raise ValueError("damaged correction record: code lengths")
            ops.append((symbol, length))
            at += length
        return ops

    def _longest_run(self, lengths: Sequence[int], at: int, border: int) -> tuple[int, int]:
        joined = bool(self.model.joined)
        start = 0 if joined or at < border else border
        end = len(lengths) if joined or at >= border else border
        length = lengths[at]
        if length and (at == start or lengths[at - 1] != length):
            return length, 1
        count, most = 1, 6 if length else 138
        while count < most and at + count < end and lengths[at + count] == length:
            count += 1
        if count < 3:
            return length, 1
        return (16 if length else 17 if count < 11 else 18), count


class _Stream:
    """A record being read."""

    def __init__(self, record: bytes, raw: bytes) -> None:
        self.coder, self.raw = _Coder(record), raw
        self.model = _Model(self.coder)
        self.guesser = _Guesser(self.model, raw)
        self.headers = _Headers(self.coder, self.model)
        self.out = _Bits()
        self.position, self.past, self.before, self.kind = 0, 7, 0, _DYNAMIC
        # Contexts of tokens: by the class of the guess, and whether the last three came true.
        self.hit, self.literal = _chances(10, 8), _chances(10, 8)
        self.same_distance, self.same_length = _chances(10), _chances(10)
        self.longer, self.last, self.full, self.padding_bits = _chances(4)
        self.off, self.hops, self.symbols, self.stored = (_Numbers() for _ in range(4))
        self.lengths, self.distances, self.kinds = _chances(256), _chances(32), _chances(4, 4)

    def read(self) -> bytes:
        blocks, last = 1024 + len(self.raw) // 16, False
        while not last:
            if not blocks:
                raise ValueError("damaged correction record: too many blocks")
            blocks -= 1
            last = self._block()
        self._padding()
        if self.position != len(self.raw):
            raise ValueError("damaged correction record: another length")
        return bytes(self.out.bytes)

    def _block(self) -> bool:
        coder, start = self.coder, self.position
        last = bool(coder.bit(self.last))
        self.kind = coder.tree(self.kinds[4 * self.kind : 4 * self.kind + 4], 2)
        self.out.put(last | self.kind << 1, 3)
        if self.kind == _STORED:
            self._stored()
            return last
        if self.kind > _DYNAMIC:
            raise ValueError("damaged correction record: no such block")
        tokens = self._tokens(last)
        if self.kind == _FIXED:
            lengths = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8
            far = [5] * _DISTANCES
        else:
            lengths, far = self.headers.write(*self._frequencies(start, tokens), self.out)
        self._write(start, tokens, lengths, far)
        return last

    def _padding(self) -> None:
        bits = -self.out.count & 7
        self.out.put(self.coder.flat(bits) if self.coder.bit(self.padding_bits) else 0, bits)

    def _stored(self) -> None:
        self._padding()
        length = self.coder.number(self.stored)
        content = self.raw[self.position : self.position + length]
        if length > 0xFFFF or len(content) < length:
            raise ValueError("damaged correction record: a stored block")
        self.out.put(length | (length ^ 0xFFFF) << 16, 32)
        self.out.bytes += content
        for _ in range(length):
            self.guesser.learn(self.position, 1)
            self.position += 1

    def _tokens(self, last: bool) -> list[Match]:
        tokens: list[Match] = []
        count = 0
        if not last:
            is_full = self.coder.bit(self.full)
            count = self.before = self.before if is_full else self.coder.number(self.symbols)
        while self.position < len(self.raw) if last else len(tokens) < count:
            if self.position >= len(self.raw):
                raise ValueError("damaged correction record: too many symbols")
            tokens.append(self._token())
        return tokens

    def _token(self) -> Match:
        """The next token: (0, 0) for a literal."""
        guessed, deferred = self.guesser.guess(self.position)
        length = guessed[0]
        kind = int(deferred)
        if length:
            kind = 2 + (length - 3 if length < 6 else 3 if length < 9 else 4 if length < 17 else 5)
            kind += (length >= 65) + (length >= 258)
        hit = self.coder.bit(self.hit[8 * kind + self.past])
        token = guessed if length else (0, 0)
        if not hit:
            token = self._miss(guessed, kind)
            self._check(token)
        self.past = (self.past << 1 | hit) & 7
        self.guesser.learn(self.position, token[0] or 1)
        self.position += token[0] or 1
        return token

    def _check(self, token: Match) -> None:
        length, distance = token
        if not length and not distance:
            return
        most = min(_LONGEST, len(self.raw) - self.position)
        if (
            not 3 <= length <= most
            or not 1 <= distance <= self.position
            or self.guesser.equal(self.position, self.position - distance, length) < length
        ):
            raise ValueError("damaged correction record: no such match")

    def _miss(self, guessed: Match, kind: int) -> Match:
        coder, length = self.coder, guessed[0]
        if length:
            if coder.bit(self.literal[8 * kind + self.past]):
                return 0, 0
            if coder.bit(self.same_distance[kind]):
                sign = 1 if coder.bit(self.longer) else -1
                length += sign * (coder.number(self.off) + 1)
                return length & 0x1FF, guessed[1]
        if not (length and coder.bit(self.same_length[kind])):
            length = coder.tree(self.lengths, 8) + 3
        return length, self._distance(length)

    def _distance(self, length: int) -> int:
        coder = self.coder
        wanted = coder.number(self.hops)
        if wanted:
            if len(self.raw) - self.position >= self.model.hashed:
                for candidate in self.guesser.candidates(self.position)[:1024]:
                    equal = self.guesser.equal(self.position, candidate, length)
                    wanted -= equal >= length
                    if not wanted:
                        return self.position - candidate
            return 0
        code = coder.tree(self.distances, 5)
        return _DISTANCE_FIRST[code] + coder.flat(_DISTANCE_EXTRA[code])

    def _frequencies(self, start: int, tokens: Sequence[Match]) -> tuple[list[int], list[int]]:
        literals, distances = [0] * _LITERALS, [0] * _DISTANCES
        literals[_END] = 1
        for length, distance in tokens:
            if length:
                literals[257 + _LENGTH_CODE[length - 3]] += 1
                distances[_distance_code(distance)] += 1
            else:
                literals[self.raw[start]] += 1
            start += length or 1
        return literals, distances

    def _write(
        self, start: int, tokens: Sequence[Match], lengths: list[int], far: list[int]
    ) -> None:
        put: Callable[[int, int], None] = self.out.put
        codes, far_codes = _codes(lengths), _codes(far)
        for length, distance in tokens:
            if not length:
                put(codes[self.raw[start]], lengths[self.raw[start]])
                start += 1
                continue
            code = _LENGTH_CODE[length - 3]
            put(codes[257 + code], lengths[257 + code])
            put(length - _LENGTH_FIRST[code], _LENGTH_EXTRA[code])
            code = _distance_code(distance)
            put(far_codes[code], far[code])
            put(distance - _DISTANCE_FIRST[code], _DISTANCE_EXTRA[code])
            start += length
        put(codes[_END], lengths[_END])


def _distance_code(distance: int) -> int:
    if distance < 5:
        return distance - 1
    bit = (distance - 1).bit_length() - 1
    return 2 * bit + (distance - 1 >> bit - 1 & 1)
