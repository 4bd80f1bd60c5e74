import ai.onnxruntime.OrtException;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.ValueMapper;

/**
 * Kafka Streams with ONNX Runtime, record by record as its model of the world has it.
 *
 * <p>Streams BOOTSTRAP GROUP SOURCE TARGET MODEL at-least-once|exactly-once DIRECTORY
 */
public final class Streams {
    private static final int THREADS = 2;

    public static void main(String[] given) {
        ThreadLocal<Network> networks = ThreadLocal.withInitial(() -> network(given[4]));
        ValueMapper<byte[], byte[]> infer = value -> {
            try {
                return networks.get().answer(new byte[][] {value}, 1)[0];
            } catch (OrtException error) {
                throw new IllegalStateException(error);
            }
        };
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(given[2], Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
            .mapValues(infer)
            .to(given[3], Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        Properties settings = settings(given);
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    private static Network network(String path) {
        try {
            return new Network(path, 1);
        } catch (OrtException error) {
            throw new IllegalStateException(error);
        }
    }

    private static Properties settings(String[] given) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", given[0]);
        settings.put("application.id", given[1]);
        settings.put("processing.guarantee", given[5].equals("exactly-once") ? "exactly_once_v2" : "at_least_once");
        settings.put("num.stream.threads", Integer.toString(THREADS));
        settings.put("commit.interval.ms", "500");
        settings.put("state.dir", given[6]);
        settings.put("consumer.auto.offset.reset", "earliest");
        settings.put("consumer.max.poll.records", "2000");
        settings.put("consumer.max.partition.fetch.bytes", "10485760");
        settings.put("producer.acks", "all");
        settings.put("producer.linger.ms", "5");
        settings.put("producer.batch.size", "262144");
        settings.put("producer.buffer.memory", "67108864");
        return settings;
    }
}
