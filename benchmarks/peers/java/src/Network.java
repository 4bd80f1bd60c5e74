import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** The network in ONNX Runtime, on one thread, and the results that are made of its scores. */
final class Network implements AutoCloseable {
    static final int PIXELS = 784;
    static final int CLASSES = 10;
    private static final byte[] BEFORE = concat(new byte[] {(byte) 0x83, (byte) 0xa2, 'i', 'd'});
    private static final byte[] AFTER = concat(
        text("model_name"), text("mlp"), text("outputs"), new byte[] {(byte) 0x91, (byte) 0x84},
        text("name"), text("scores"), text("datatype"), text("FP32"), text("shape"), new byte[] {(byte) 0x91, CLASSES},
        text("data"), new byte[] {(byte) 0xc4, 4 * CLASSES});

    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;
    private final FloatBuffer images;
    private final int rowsMax;

    Network(String path, int rowsMax) throws OrtException {
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setIntraOpNumThreads(1);
        options.setInterOpNumThreads(1);
        this.rowsMax = rowsMax;
        session = environment.createSession(path, options);
        images = ByteBuffer.allocateDirect(4 * PIXELS * rowsMax).order(ByteOrder.nativeOrder()).asFloatBuffer();
    }

    /** Infers requests in one call; a result for each. */
    byte[][] answer(byte[][] values, int count) throws OrtException {
        assert count <= rowsMax;
        Request[] requests = new Request[count];
        images.clear();
        for (int row = 0; row < count; row++) {
            requests[row] = new Request(values[row]);
            images.put(requests[row].tensor());
        }
        images.flip();
        byte[][] results = new byte[count][];
        try (OnnxTensor input = OnnxTensor.createTensor(environment, images, new long[] {count, PIXELS});
             OrtSession.Result output = session.run(Map.of("image", input))) {
            FloatBuffer scores = ((OnnxTensor) output.get(0)).getFloatBuffer();
            for (int row = 0; row < count; row++) {
                results[row] = result(values[row], requests[row], scores);
            }
        }
        return results;
    }

    private static byte[] result(byte[] value, Request request, FloatBuffer scores) {
        int id = request.idEnd - request.idStart;
        ByteBuffer written = ByteBuffer.allocate(BEFORE.length + id + AFTER.length + 4 * CLASSES)
            .order(ByteOrder.LITTLE_ENDIAN);
        written.put(BEFORE).put(value, request.idStart, id).put(AFTER);
        for (int index = 0; index < CLASSES; index++) {
            written.putFloat(scores.get());
        }
        return written.array();
    }

    private static byte[] text(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        return concat(new byte[] {(byte) (0xa0 | bytes.length)}, bytes);
    }

    private static byte[] concat(byte[]... parts) {
        ByteArrayOutputStream whole = new ByteArrayOutputStream();
        for (byte[] part : parts) {
            whole.writeBytes(part);
        }
        return whole.toByteArray();
    }

    @Override
    public void close() throws OrtException {
        session.close();
    }
}
