#include "bits.h"

bool bits_grow(BitWriter *writer, size_t more)
{
    size_t room = writer->room * 2 + more + 4096;
    u8 *grown = writer->failed ? NULL : realloc(writer->bytes, room);
    if (!grown) {
        writer->failed = true;
        return false;
    }
    writer->bytes = grown;
    writer->room = room;
    return true;
}

void bits_put_bytes(BitWriter *writer, const u8 *bytes, size_t count)
{
    if (writer->room - writer->size < count && !bits_grow(writer, count))
        return;
    if (count)
        memcpy(writer->bytes + writer->size, bytes, count);
    writer->size += count;
}
