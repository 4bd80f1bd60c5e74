import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;

/** One request in msgpack, read by hand: only its id and the bytes of its first tensor are looked for. */
final class Request {
    private final byte[] value;
    private int at;
    int idStart = -1;
    int idEnd;
    int tensorStart = -1;
    int tensorEnd;

    Request(byte[] value) {
        this.value = value;
        for (int left = mapLength(); left > 0; left--) {
            int start = textStart();
            if (is(start, "id")) {
                idStart = at;
                skip();
                idEnd = at;
            } else if (is(start, "inputs")) {
                inputs();
            } else {
                skip();
            }
        }
        if (idStart < 0 || tensorStart < 0) {
            throw new IllegalArgumentException("a request without an id or a tensor");
        }
    }

    /** The tensor's numbers, not copied. */
    FloatBuffer tensor() {
        return ByteBuffer.wrap(value, tensorStart, tensorEnd - tensorStart).slice()
            .order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    }

    private void inputs() {
        int count = arrayLength();
        for (int input = 0; input < count; input++) {
            for (int left = mapLength(); left > 0; left--) {
                int start = textStart();
                if (input == 0 && is(start, "data")) {
                    tensorEnd = binary();
                    at = tensorEnd;
                } else {
                    skip();
                }
            }
        }
    }

    private int binary() {
        int size = switch (value[at] & 0xff) {
            case 0xc4 -> unsigned(1);
            case 0xc5 -> unsigned(2);
            case 0xc6 -> unsigned(4);
            default -> throw new IllegalArgumentException("a tensor that is not binary");
        };
        tensorStart = at;
        return at + size;
    }

    private int unsigned(int bytes) {
        int number = 0;
        at++;
        for (int index = 0; index < bytes; index++) {
            number = number << 8 | value[at++] & 0xff;
        }
        return number;
    }

    private int mapLength() {
        int head = value[at] & 0xff;
        if ((head & 0xf0) == 0x80) {
            at++;
            return head & 0x0f;
        }
        return unsigned(head == 0xde ? 2 : 4);
    }

    private int arrayLength() {
        int head = value[at] & 0xff;
        if ((head & 0xf0) == 0x90) {
            at++;
            return head & 0x0f;
        }
        return unsigned(head == 0xdc ? 2 : 4);
    }

    /** Moves behind a text; where its characters start. */
    private int textStart() {
        int head = value[at] & 0xff;
        int size;
        if ((head & 0xe0) == 0xa0) {
            size = head & 0x1f;
            at++;
        } else {
            size = unsigned(head == 0xd9 ? 1 : head == 0xda ? 2 : 4);
        }
        int start = at;
        at += size;
        return start;
    }

    private boolean is(int start, String text) {
        if (at - start != text.length()) {
            return false;
        }
        for (int index = 0; index < text.length(); index++) {
            if (value[start + index] != text.charAt(index)) {
                return false;
            }
        }
        return true;
    }

    private void skip() {
        int head = value[at] & 0xff;
        if (head < 0x80 || head >= 0xe0 || head == 0xc0 || head == 0xc2 || head == 0xc3) {
            at++;
        } else if ((head & 0xf0) == 0x80 || head == 0xde || head == 0xdf) {
            for (int left = 2 * mapLength(); left > 0; left--) {
                skip();
            }
        } else if ((head & 0xf0) == 0x90 || head == 0xdc || head == 0xdd) {
            for (int left = arrayLength(); left > 0; left--) {
                skip();
            }
        } else if ((head & 0xe0) == 0xa0 || head >= 0xd9 && head <= 0xdb) {
            textStart();
        } else if (head >= 0xc4 && head <= 0xc6) {
            int start = tensorStart;
            at = binary();
            tensorStart = start;
        } else {
            at += switch (head) {
                case 0xcc, 0xd0 -> 2;
                case 0xcd, 0xd1 -> 3;
                case 0xca, 0xce, 0xd2 -> 5;
                case 0xcb, 0xcf, 0xd3 -> 9;
                default -> throw new IllegalArgumentException("a type that no request has");
            };
        }
    }
}
