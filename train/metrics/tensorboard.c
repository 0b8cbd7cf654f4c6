// An event file is a series of records
//     length uint64 | masked CRC-32C of the length uint32 | message | masked CRC-32C of it uint32
// in little-endian, each message an Event of tensorflow/core/util/event.proto:
//     Event      {double wall_time = 1; int64 step = 2; string file_version = 3;
//                 Summary summary = 5; SessionLog session_log = 7;}
//     Summary    {repeated Value {string tag = 1; float simple_value = 2;} value = 1;}
//     SessionLog {Status status = 1;}                                          START is 1
// They are encoded by hand: protobuf-c would need TensorFlow's .proto files in the tree and its
// compiler in the build for three messages of nine fields, and offers neither records nor CRC,
// which are half of this file.
#include "train/metrics/tensorboard.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum {
    // Wire types of protobuf.
    VARINT = 0,
    FIXED64 = 1,
    BYTES = 2,
    FIXED32 = 5,

    VALUE_BYTES = TENSORBOARD_TAG_BYTES + 16,
    MESSAGE_BYTES = TENSORBOARD_MAX_SCALARS * (VALUE_BYTES + 8) + 64,
    MAX_NAMES = 100, // file names tried when runs start in the same second
};

typedef struct Message {
    uint8_t bytes[MESSAGE_BYTES];
    size_t size;
} Message;

static void put_byte(Message *m, uint8_t byte)
{
    CHECK(m->size < sizeof m->bytes, "event of more than %zu bytes", sizeof m->bytes);
    m->bytes[m->size++] = byte;
}

// Little-endian.
static void put_little(Message *m, uint64_t value, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++)
        put_byte(m, (uint8_t)(value >> 8 * i));
}

// Seven bits per byte, the lowest first; the top bit says that more bytes follow.
static void put_varint(Message *m, uint64_t value)
{
    for (; value > 127; value >>= 7)
        put_byte(m, (uint8_t)(value | 128));
    put_byte(m, (uint8_t)value);
}

// Field number and wire type in one varint, as protobuf's encoding has them.
static void put_key(Message *m, int field, int wire_type)
{
    put_varint(m, (uint64_t)(field << 3 | wire_type));
}

static void put_int(Message *m, int field, int64_t value)
{
    put_key(m, field, VARINT);
    put_varint(m, (uint64_t)value);
}

// memcpy() reads the IEEE 754 bits without breaking the aliasing rules of C.
static void put_double(Message *m, int field, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(m, field, FIXED64);
    put_little(m, bits, 8);
}

static void put_float(Message *m, int field, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(m, field, FIXED32);
    put_little(m, bits, 4);
}

static void put_bytes(Message *m, int field, const void *bytes, size_t size)
{
    put_key(m, field, BYTES);
    put_varint(m, size);
    for (size_t i = 0; i < size; i++)
        put_byte(m, ((const uint8_t *)bytes)[i]);
}

// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), rotated and offset as TFRecord files have
// it. A bit at a time is fast enough: an event has a few hundred bytes.
static uint32_t masked_crc32c(const uint8_t *bytes, size_t size)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

// Writes and flushes a record; false with errno set if that fails.
static bool write_record(FILE *file, const Message *event)
{
    Message frame = {.size = 0}, end = {.size = 0};
    put_little(&frame, event->size, 8);
    put_little(&frame, masked_crc32c(frame.bytes, 8), 4);
    put_little(&end, masked_crc32c(event->bytes, event->size), 4);
    return fwrite(frame.bytes, 1, frame.size, file) == frame.size &&
           fwrite(event->bytes, 1, event->size, file) == event->size &&
           fwrite(end.bytes, 1, end.size, file) == end.size && fflush(file) == 0;
}

// Creates a file. Its name has the time in seconds; if that exists already, a later second is used.
static Status create_file(FILE **out, char path[PATH_BYTES], const char *run_dir, const char *host,
                          double wall_s)
{
    int file = -1;
    for (int i = 0; i < MAX_NAMES && file < 0; i++) {
        char name[320];
        snprintf(name, sizeof name, "events.out.tfevents.%010lld.%.255s", (long long)wall_s + i,
                 host);
        TRY(file_join(path, run_dir, name));
        file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file < 0 && errno != EEXIST)
            break;
    }
    FILE *stream = file >= 0 ? fdopen(file, "wb") : NULL;
    if (stream == NULL) {
        const Status status =
            fail(FAILED, "%s: cannot be written: %s; or set log.tensorboard to false", path,
                 strerror(errno));
        if (file >= 0)
            close(file);
        return status;
    }
    *out = stream;
    return OK;
}

Status tensorboard_open(TensorBoard *out, const char *run_dir, const char *host, double wall_s,
                        int64_t first_step)
{
    static const char version[] = "brain.Event:2";
    char path[PATH_BYTES];
    FILE *file;
    Message event = {.size = 0}, start = {.size = 0};
    TRY(create_file(&file, path, run_dir, host, wall_s));
    put_double(&event, 1, wall_s);
    put_bytes(&event, 3, version, sizeof version - 1);
    bool is_written = write_record(file, &event);
    event.size = 0;
    // START makes TensorBoard discard what an earlier file has from first_step on: those steps are
    // trained again after a resume.
    put_int(&start, 1, 1);
    put_double(&event, 1, wall_s);
    put_int(&event, 2, first_step);
    put_bytes(&event, 7, start.bytes, start.size);
    is_written = is_written && write_record(file, &event);
    if (!is_written) {
        const Status status = fail(FAILED, "%s: write failed: %s", path, strerror(errno));
        fclose(file);
        return status;
    }
    out->file = file;
    return OK;
}

// An embedded message is encoded first and put into the outer one with its length, so each level
// has a buffer of its own. TensorBoard is a convenience beside metrics.jsonl: an error closes the
// file with a warning and does not end the run.
void tensorboard_write(TensorBoard *board, double wall_s, int64_t step,
                       const TensorBoardScalar *scalars, size_t n_scalars)
{
    if (board->file == NULL)
        return;
    CHECK(n_scalars <= TENSORBOARD_MAX_SCALARS, "%zu scalars", n_scalars);
    Message event = {.size = 0}, summary = {.size = 0};
    for (size_t i = 0; i < n_scalars; i++) {
        Message value = {.size = 0};
        CHECK(strlen(scalars[i].tag) < TENSORBOARD_TAG_BYTES, "tag %s", scalars[i].tag);
        put_bytes(&value, 1, scalars[i].tag, strlen(scalars[i].tag));
        put_float(&value, 2, scalars[i].value);
        put_bytes(&summary, 1, value.bytes, value.size);
    }
    put_double(&event, 1, wall_s);
    put_int(&event, 2, step);
    put_bytes(&event, 5, summary.bytes, summary.size);
    if (write_record(board->file, &event))
        return;
    log_warn("TensorBoard's file has nothing from step %lld on: %s; metrics.jsonl has it all",
             (long long)step, strerror(errno));
    tensorboard_close(board);
}

void tensorboard_close(TensorBoard *board)
{
    if (board->file != NULL)
        fclose(board->file);
    board->file = NULL;
}
