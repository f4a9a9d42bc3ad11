"""Podfiles that are wrong, and what is to be said of each (a regular expression)."""
# ruff: noqa: E501  # a mistake and its message stand on one line

from __future__ import annotations

BAD: list[tuple[str, str]] = [
    ('{"containers": []}', "line 1: a pod needs at least one container"),
    ("{}", "line 1: a pod needs at least one container"),
    ("[]", "line 1: a list where mapping of keys to values is needed"),
    ('{\n"containers": [{}]}', r"line 2, containers\[0\]: a container needs an 'image'"),
    ('{\n"containers":\n[\n{"image": "i"},\n{"image": 5,\n"imaeg": "i"}]}', r"line 6, containers\[1\].imaeg: unknown key 'imaeg'"),
    ('{"containers": [{"image": "i"}],\n\n"memroy": 5}', "line 3, memroy: unknown key 'memroy'"),
    ('{"containers": [{"image": "i"}],\n"resource": {"vcpu": "2"}}', "line 2, resource.vcpu: the text '2' where whole number"),
    ('{"containers": [{"image": "i"}],\n"resource": {"vcpu": 2.5}}', "line 2, resource.vcpu: 2.5 where whole number"),
    ('{"containers": [{"image": "i"}],\n"resource": {"vcpu": 300}}', "line 2, resource.vcpu: 300 is not within"),
    ('{"containers": [{"image": "i"}],\n"resource": {"memory": true}}', "line 2, resource.memory: true where whole number"),
    ('{"containers": [{"image": "i",\n"tty": "yes"}]}', r"line 2, containers\[0\].tty: the text 'yes' where true or false"),
    ('{"containers": [{"image": "i",\n"command": "ls"}]}', r"line 2, containers\[0\].command: the text 'ls' where list"),
    ('{"containers": [{"image": "i",\n"command": [["ls"]]}]}', r"line 2, containers\[0\].command\[0\]: a list where text"),
    ('{"containers": [{"image": "i",\n"envs": [{"env": ""}]}]}', r"line 2, containers\[0\].envs\[0\]: invalid environment"),
    ('{"containers": [{"image": "i",\n"envs": [{"env": "A"},{"env": "A"}]}]}', r"envs\[1\]: environment variable 'A' is there twice"),
    ('{"containers": [{"image": "i",\n"volumes": [{"volume": "v"}]}]}', r"line 2, containers\[0\].volumes: 'volumes' is not supported yet"),
    ('{"containers": [{"image": "i"}],\n"services": [1]}', "line 2, services: 'services' is not supported yet"),
    ('{"containers": [{"image": "i"}],\n"restartPolicy": "always"}', "line 2, restartPolicy: 'restartPolicy' other than"),
    ('{"containers": [{"image": "i"}],\n"type": "kubernetes"}', "line 2, type: a podfile of type 'kubernetes'"),
    ('{"containers": [{"image": "i"}],\n"hostname": "a_b"}', "line 2, hostname: invalid hostname 'a_b'"),
    ('{"containers": [{"image": "i"}],\n"hostname": "%s"}' % ("a" * 64), "line 2, hostname: hostname .* has 64 characters"),
    ('{"containers": [{"image": "i"}],\n"id": "-x"}', "line 2, id: invalid name '-x'"),
    ('{"containers": [{"image": "i"}],\n"id": "a/b"}', "line 2, id: invalid name 'a/b'"),
    ('{"containers": [{"image": "i"}],\n"Id": "a",\n"ID": "b"}', "line 3, ID: 'ID' is there twice"),
    ('{"containers": [{"image": "i"}],\n"portmappings": [{}]}', r"line 2, portmappings\[0\]: a port mapping needs"),
    ('{"containers": [{"image": "i"}],\n"portmappings": [{"containerPort": "1-2", "hostPort": "1-3"}]}', "3 ports of the host for 2"),
    ('{"containers": [{"image": "i"}],\n"portmappings": [{"containerPort": "http"}]}', "'http' is no port"),
    ('{"containers": [{"image": "i"}],\n"requireIsolation": "yes"}', "line 2, requireIsolation: .* is 'any' or 'hardware'"),
    ('{"containers": [{"image": "i",\n"user": {"group": "g"}}]}', r"line 2, containers\[0\].user: a user with a 'group'"),
    ('{"containers": [{"image": "i",\n"workdir": "a\\u0000b"}]}', "line 2, .*NUL"),
    ('{"containers": [\n{"image": }]}', "line 2, column 11: this is no JSON"),
    ('{"containers": NaN}', "no usable JSON: NaN"),
    ("", "is empty"),
    ("[" * 5000, "no (usable )?JSON|nested too deeply"),
]  # fmt: skip

BAD_YAML: list[tuple[str, str]] = [
    ("containers:\n- image: i\n  tty: 5\n", r"line 3, containers\[0\].tty: 5 where true or false"),
    ("containers:\n- image: i\n  imagee: i\n", r"line 3, containers\[0\].imagee: unknown key"),
    ("containers:\n- image: i\n id: x\n", "line 3: this is no YAML"),
    ("containers: &a\n- *a\n", "nested too deeply|found undefined|no usable|where mapping"),
    ("a: 1\na: 2\n", "'a' is there twice"),
    ("containers: [{image: i, <<: {tty: true}}]\n", "merge keys"),
    ("id: !!python/object/apply:os.system [ls]\ncontainers: [{image: i}]\n", "line 1, id: a list where text"),
    ("just text\n", "the text 'just text' where mapping"),
]
