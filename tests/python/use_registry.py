"""Uses the schema registry and the broker as a Python program does: Confluent's own client.

Usage: use_registry.py BOOTSTRAP REGISTRY TOPIC

TOPIC must not exist; it is made and removed again. Prints one JSON object with what was done, or
ends with a traceback at the first answer that is not Confluent's.
"""

import json
import sys

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import (
    Schema, SchemaRegistryClient, topic_record_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext


def record(*fields):
    return json.dumps({"type": "record", "name": "Parcel", "namespace": "test", "fields": fields})


ID = {"name": "id", "type": "string"}
GRAMS = {"name": "grams", "type": "int", "doc": "Weight."}
HEAVY = {"name": "grams", "type": "long", "doc": "Weight."}
NOTE = {"name": "note", "type": ["null", "string"], "default": None}
FIRST, SECOND = record(ID, GRAMS), record(ID, HEAVY, NOTE)
BROKEN = record(ID, GRAMS, {"name": "to", "type": "string"})


def equal(found, expected):
    if found != expected:
        raise AssertionError(f"{found!r} is not {expected!r}")


def refused(status, code, call, *args, **kwargs):
    try:
        answer = call(*args, **kwargs)
    except SchemaRegistryError as error:
        equal((error.http_status_code, error.error_code), (status, code))
    else:
        raise AssertionError(f"{call.__name__}{args} was answered with {answer!r}")


def schemas_and_versions(client, subject):
    first, second = Schema(FIRST, "AVRO"), Schema(SECOND, "AVRO")
    id_1 = client.register_schema(subject, first)
    client.clear_caches()
    equal(client.register_schema(subject, first, normalize_schemas=True), id_1)
    equal(json.loads(client.get_schema(id_1).schema_str), json.loads(FIRST))
    found = client.lookup_schema(subject, first)
    equal((found.schema_id, found.version, found.subject), (id_1, 1, subject))
    refused(404, 40403, client.lookup_schema, subject, second)
    refused(404, 40401, client.lookup_schema, subject + "-none", first)
    equal(client.get_compatibility(), "BACKWARD")
    equal(client.test_compatibility(subject, second), True)
    equal(client.test_compatibility(subject, Schema(BROKEN, "AVRO")), False)
    refused(409, 409, client.register_schema, subject, Schema(BROKEN, "AVRO"))
    refused(422, 42201, client.register_schema, subject, Schema("{", "AVRO"))
    id_2 = client.register_schema(subject, second)
    equal(client.get_versions(subject), [1, 2])
    equal(client.get_latest_version(subject).schema_id, id_2)
    equal(client.get_version(subject, 1).schema_id, id_1)
    equal(subject in client.get_subjects(), True)
    equal(client.get_subjects_by_schema_id(id_2), [subject])
    equal([(v.subject, v.version) for v in client.get_schema_versions(id_1)], [(subject, 1)])
    equal(client.get_referenced_by(subject, 1), [])
    equal(client.get_schema_types(), ["AVRO"])
    equal(client.get_contexts(), ["."])
    refused(404, 40402, client.get_version, subject, 9)
    refused(404, 40401, client.get_latest_version, subject + "-none")
    refused(404, 40403, client.get_schema, 2_000_000_000)
    return id_1, id_2


def levels_and_modes(client, subject):
    refused(404, 40408, client.get_compatibility, subject)
    for level in ["NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE",
                  "FULL", "FULL_TRANSITIVE"]:
        equal(client.set_compatibility(subject, level)["compatibility"], level)
        equal(client.get_compatibility(subject), level)
        equal(client.get_config(subject).compatibility_level, level)
    refused(422, 42203, client.set_compatibility, subject, "LOUD")
    equal(client.test_compatibility_all_versions(subject, Schema(SECOND, "AVRO")), False)
    client.delete_config(subject)
    refused(404, 40408, client.get_compatibility, subject)
    equal(client.get_global_mode(), "READWRITE")
    refused(404, 40409, client.get_mode, subject)
    equal(client.update_mode(subject, "READONLY"), "READONLY")
    equal(client.get_mode(subject), "READONLY")
    refused(422, 42205, client.register_schema, subject, Schema('"int"', "AVRO"))
    refused(422, 42204, client.update_mode, subject, "LOUD")
    equal(client.delete_mode(subject), "READONLY")


def deletion(client, subject, ids):
    refused(404, 40405, client.delete_subject, subject, permanent=True)
    equal(client.delete_version(subject, 1), 1)
    equal(client.get_versions(subject), [2])
    equal(client.get_versions(subject, deleted=True), [1, 2])
    equal(client.get_versions(subject, deleted=True, offset=1, limit=1), [2])
    equal(client.delete_version(subject, 1, permanent=True), 1)
    equal(client.delete_subject(subject), [2])
    equal(subject in client.get_subjects(), False)
    equal(subject in client.get_subjects(deleted=True), True)
    equal(client.delete_subject(subject, permanent=True), [2])
    client.clear_caches()
    for schema_id in ids:
        client.get_schema(schema_id)


def send(producer, topic, serializer, values):
    for value in values:
        context = SerializationContext(topic, MessageField.VALUE)
        producer.produce(topic, key=value["id"], value=serializer(value, context))
    equal(producer.flush(30), 0)


def produce_and_consume(client, bootstrap, topic):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics([NewTopic(topic, 2, 1)]).values():
        made.result(30)
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    by_record = {"subject.name.strategy": topic_record_subject_name_strategy}
    # Old and new code write side by side, as the platform names its subjects.
    old = [{"id": f"p{n}", "grams": n} for n in range(50)]
    new = [{"id": f"q{n}", "grams": 1 << 40, "note": "heavy" if n % 2 else None} for n in range(50)]
    send(producer, topic, AvroSerializer(client, FIRST, conf=by_record), old)
    send(producer, topic, AvroSerializer(client, SECOND, conf=by_record), new)
    subject = f"{topic}-test.Parcel"
    equal(client.get_versions(subject), [1, 2])
    # The newest schema without registering anything.
    latest = {**by_record, "auto.register.schemas": False, "use.latest.version": True}
    last = {"id": "r", "grams": 1, "note": "x"}
    send(producer, topic, AvroSerializer(client, SECOND, conf=latest), [last])

    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })
    consumer.subscribe([topic])
    expected = {value["id"]: {"note": None, **value} for value in old + new}
    expected["r"] = last
    # Read by the new schema: what the old one wrote is promoted and gets its defaults.
    deserializer = AvroDeserializer(client, SECOND)
    found, silent = {}, 0
    while len(found) < len(expected) and silent < 60:
        message = consumer.poll(1)
        if message is None:
            silent += 1
            continue
        if message.error():
            raise AssertionError(message.error())
        value = deserializer(message.value(), SerializationContext(topic, MessageField.VALUE))
        equal(message.key().decode(), value["id"])
        found[value["id"]] = value
    consumer.close()
    equal(found, expected)
    for removed in admin.delete_topics([topic]).values():
        removed.result(30)
    client.delete_subject(subject)
    client.delete_subject(subject, permanent=True)
    return len(found)


def main():
    bootstrap, registry, topic = sys.argv[1:]
    client = SchemaRegistryClient({"url": registry})
    subject = f"{topic}-api"
    ids = schemas_and_versions(client, subject)
    levels_and_modes(client, subject)
    deletion(client, subject, ids)
    print(json.dumps({"records": produce_and_consume(client, bootstrap, topic)}))


main()
