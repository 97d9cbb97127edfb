from typing_extensions import Buffer

def deflate(
    raw: Buffer,
    level: int,
    strategy: int,
    mem_level: int,
    window_bits: int,
    threads: int = 1,
    row_bytes: int = 0,
) -> tuple[bytes, bytes]: ...
def deflate_delta(
    reference_raw: Buffer,
    reference_tokens: Buffer,
    raw: Buffer,
    level: int,
    strategy: int,
    mem_level: int,
    window_bits: int,
    threads: int = 1,
    row_bytes: int = 0,
    reference_body: Buffer | None = None,
) -> tuple[bytes, bytes]: ...
def identify(
    body: Buffer, raw: Buffer, limit: int = 1 << 20
) -> list[tuple[int, int, int, int]]: ...
