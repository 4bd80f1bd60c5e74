import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The loop that a good engineer would write in Java: one call of the network for each poll, flush and commit every half
 * second, or a transaction instead.
 *
 * <p>Loop BOOTSTRAP GROUP SOURCE TARGET MODEL at-least-once|exactly-once
 */
public final class Loop {
    private static final int ROWS_MAX = 2000;
    private static final long INTERVAL_NS = 500_000_000L;
    private static volatile boolean stopping;

    public static void main(String[] given) throws Exception {
        Thread loop = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping = true;
            try {
                loop.join();
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
            }
        }));
        boolean exactlyOnce = given[5].equals("exactly-once");
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(consumer(given[0], given[1]));
             KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(producer(given[0], given[1], exactlyOnce));
             Network network = new Network(given[4], ROWS_MAX)) {
            consumer.subscribe(List.of(given[2]));
            if (exactlyOnce) {
                producer.initTransactions();
            }
            run(consumer, producer, network, given[3], exactlyOnce);
        }
    }

    private static void run(
            KafkaConsumer<byte[], byte[]> consumer, KafkaProducer<byte[], byte[]> producer, Network network,
            String target, boolean exactlyOnce) throws Exception {
        byte[][] values = new byte[ROWS_MAX][];
        boolean open = false;
        long commitAt = System.nanoTime() + INTERVAL_NS;
        while (!stopping || open) {
            ConsumerRecords<byte[], byte[]> records =
                stopping ? ConsumerRecords.empty() : consumer.poll(Duration.ofMillis(100));
            if (!records.isEmpty()) {
                if (!open && exactlyOnce) {
                    producer.beginTransaction();
                }
                open = true;
                int count = 0;
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    values[count++] = record.value();
                }
                for (byte[] result : network.answer(values, count)) {
                    producer.send(new ProducerRecord<>(target, result));
                }
            }
            if (open && (stopping || System.nanoTime() >= commitAt)) {
                commit(consumer, producer, exactlyOnce);
                open = false;
                commitAt = System.nanoTime() + INTERVAL_NS;
            }
        }
    }

    private static void commit(
            KafkaConsumer<byte[], byte[]> consumer, KafkaProducer<byte[], byte[]> producer, boolean exactlyOnce) {
        if (!exactlyOnce) {
            producer.flush();
            consumer.commitSync();
            return;
        }
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (TopicPartition partition : consumer.assignment()) {
            offsets.put(partition, new OffsetAndMetadata(consumer.position(partition)));
        }
        producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
        producer.commitTransaction();
    }

    private static Properties consumer(String bootstrap, String group) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("group.id", group);
        settings.put("key.deserializer", ByteArrayDeserializer.class.getName());
        settings.put("value.deserializer", ByteArrayDeserializer.class.getName());
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("max.poll.records", Integer.toString(ROWS_MAX));
        settings.put("max.partition.fetch.bytes", "10485760");
        settings.put("receive.buffer.bytes", "1048576");
        return settings;
    }

    private static Properties producer(String bootstrap, String group, boolean exactlyOnce) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("key.serializer", ByteArraySerializer.class.getName());
        settings.put("value.serializer", ByteArraySerializer.class.getName());
        settings.put("acks", "all");
        settings.put("enable.idempotence", "true");
        settings.put("linger.ms", "5");
        settings.put("batch.size", "262144");
        settings.put("buffer.memory", "67108864");
        if (exactlyOnce) {
            settings.put("transactional.id", group);
        }
        return settings;
    }
}
