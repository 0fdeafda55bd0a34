"""Reads topics as a stranger does: Confluent's own client, and the schema registry alone.

Usage: read_topics.py BOOTSTRAP REGISTRY TOPIC...

Checks every record against the published wire format and prints one JSON object: per topic the
number of records, the sum of quantity * unit price, and what was found on the way. Ends with 1 and
a message at the first record that is not as published.
"""

import json
import re
import struct
import sys
from datetime import datetime, timezone
from decimal import Decimal

from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_CREATE_TIME, Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

EXACTLY = {"ce_specversion": "1.0", "content-type": "application/avro"}
REQUIRED = [
    "ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject", "ce_time", "ce_dataschema",
    "content-type", "ce_position", "ce_streamversion", "ce_correlationid", "ce_actor",
    "traceparent",
]
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def murmur2(key):
    """Kafka's own hash of keys, as Java clients have it."""
    mask = 0xFFFFFFFF
    m = 0x5BD1E995
    h = (0x9747B28C ^ len(key)) & mask
    whole = len(key) // 4 * 4
    for (k,) in struct.iter_unpack("<I", key[:whole]):
        k = (k * m) & mask
        k = ((k ^ (k >> 24)) * m) & mask
        h = ((h * m) & mask) ^ k
    rest = key[whole:]
    if rest:
        h = ((h ^ int.from_bytes(rest, "little")) * m) & mask
    h = ((h ^ (h >> 13)) * m) & mask
    return h ^ (h >> 15)


def wrong(record, why):
    where = f"{record.topic()}[{record.partition()}]@{record.offset()} key {record.key()!r}"
    sys.exit(f"{where}: {why}")


def headers_of(record):
    headers = {}
    for name, value in record.headers() or []:
        if name in headers:
            wrong(record, f"header {name} is there twice")
        headers[name] = value.decode("utf-8")
    missing = [name for name in REQUIRED if name not in headers]
    if missing:
        wrong(record, f"headers are missing: {missing}")
    return headers


def check_headers(record, headers, registry):
    key = record.key().decode("utf-8")
    for name, value in EXACTLY.items():
        if headers[name] != value:
            wrong(record, f"{name} is {headers[name]!r}")
    if not UUID.fullmatch(headers["ce_id"]):
        wrong(record, f"ce_id is {headers['ce_id']!r}")
    if not TRACEPARENT.fullmatch(headers["traceparent"]):
        wrong(record, f"traceparent is {headers['traceparent']!r}")
    if headers["ce_subject"] != key:
        wrong(record, f"ce_subject is {headers['ce_subject']!r}")
    # What was posted from outside has no cause but its command.
    for name in ["ce_source", "ce_correlationid", "ce_causationid", "ce_actor"]:
        if headers.get(name) == "":
            wrong(record, f"{name} is empty")
    kind, millis = record.timestamp()
    time = datetime.fromisoformat(headers["ce_time"].replace("Z", "+00:00"))
    since_1970 = time - datetime(1970, 1, 1, tzinfo=timezone.utc)
    expected = since_1970.days * 86_400_000 + since_1970.seconds * 1000
    expected += since_1970.microseconds // 1000
    if kind != TIMESTAMP_CREATE_TIME or millis != expected:
        wrong(record, f"its timestamp is {millis}, ce_time {headers['ce_time']}")
    magic, schema_id = struct.unpack(">BI", record.value()[:5])
    if magic != 0:
        wrong(record, f"its first byte is {magic}")
    schema = json.loads(registry.get_schema(schema_id).schema_str)
    full_name = f"{schema['namespace']}.{schema['name']}"
    if headers["ce_type"] != full_name:
        wrong(record, f"ce_type is {headers['ce_type']!r}, its record {full_name!r}")
    if not headers["ce_dataschema"].endswith(f"/schemas/ids/{schema_id}"):
        wrong(record, f"ce_dataschema is {headers['ce_dataschema']!r}")
    return full_name


def records(bootstrap, topic):
    """Every record that is there now, partition by partition, and the number of partitions."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "a-stranger",
        "enable.auto.commit": False,
        "enable.partition.eof": False,
    })
    try:
        partitions = sorted(consumer.list_topics(topic, timeout=20).topics[topic].partitions)
        ends = {}
        for partition in partitions:
            at = TopicPartition(topic, partition)
            ends[partition] = consumer.get_watermark_offsets(at, timeout=20)[1]
        left = {partition for partition, end in ends.items() if end > 0}
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in left])
        while left:
            record = consumer.poll(20)
            if record is None:
                sys.exit(f"{topic}: no record within 20 s, partitions {left} are not at their end")
            if record.error():
                sys.exit(f"{topic}: {record.error()}")
            if record.partition() in left:
                yield record, len(partitions)
                if record.offset() + 1 >= ends[record.partition()]:
                    left.discard(record.partition())
    finally:
        consumer.close()


def read(bootstrap, registry, topic):
    deserialize = AvroDeserializer(registry)
    last, versions, amount, count, repeats, types = {}, {}, Decimal(0), 0, 0, set()
    for record, partitions in records(bootstrap, topic):
        headers = headers_of(record)
        name = check_headers(record, headers, registry)
        if name not in types and f"{topic}-{name}" not in registry.get_subjects():
            wrong(record, f"there is no subject {topic}-{name}")
        types.add(name)
        if record.partition() != (murmur2(record.key()) & 0x7FFFFFFF) % partitions:
            wrong(record, "it is in another partition than its key says")
        position = int(headers["ce_position"])
        before = last.get(record.partition(), 0)
        if position <= before:
            repeats += 1
            continue
        if position != before + 1:
            wrong(record, f"position {position} comes after {before}")
        last[record.partition()] = position
        version = int(headers["ce_streamversion"])
        if version != versions.get(record.key(), 0) + 1:
            wrong(record, f"version {version} comes after {versions.get(record.key(), 0)}")
        versions[record.key()] = version
        event = deserialize(record.value(), SerializationContext(topic, MessageField.VALUE))
        for line in event["lines"]:
            amount += line["quantity"] * Decimal(str(line["unit_price"]))
        count += 1
    return {
        "records": count, "repeats": repeats, "amount": str(amount), "types": sorted(types),
        "partitions": len(last),
    }


def main():
    bootstrap, registry_url, *topics = sys.argv[1:]
    registry = SchemaRegistryClient({"url": registry_url})
    print(json.dumps({topic: read(bootstrap, registry, topic) for topic in topics}))


if __name__ == "__main__":
    main()
