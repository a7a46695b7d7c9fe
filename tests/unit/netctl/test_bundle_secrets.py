"""Fifty secrets, as people leave them lying about: none gets through, and what is no secret does."""

import json

import pytest

from netctl.bundle.secrets import MASK, masked

S = "hunter2-7{&;,$-hunter2"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.aHVudGVyMi1odW50ZXIy"
BASE64 = "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVy"
WIREGUARD = "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnQ="
PEM = f"-----BEGIN EC PRIVATE KEY-----\n{BASE64}\n{BASE64}\n-----END EC PRIVATE KEY-----"
HIDDEN = ("hunter2", "aHVudGVy", "c2VjcmV0")
"""What the secrets below are made of."""
SECRETS = (
    # command lines
    f"netproxy --etcd-password {S}",
    f"netproxy --etcd-password={S} --v=2",
    f"netproxy --etcd-password '{S} {S}'",
    f"netagent\0--etcd-password\0{S}\0--iface\0eth0",
    f"etcdctl --user root:{S} get /",
    f"curl -u admin:{S} https://registry",
    f"kubeadm join --token {S} 10.0.0.1:6443",
    f"wg set wg0 private-key <(echo {WIREGUARD})",
    # environment and units
    f"NODENET_ETCD_PASSWORD={S}",
    f"FLANNELD_ETCD_PASSWORD={S}",
    f'Environment="DB_PASSWORD={S} {S}" "A=1"',
    f"Environment='API_TOKEN={S} {S}'",
    f"export AWS_SECRET_ACCESS_KEY={S}",
    "AWS_ACCESS_KEY_ID=AKIAHUNTER2HUNTER2XX",
    f"PGPASSWORD={S} psql",
    f'NETPROXY_OPTIONS="--etcd-password {S} --etcd-endpoints http://10.0.0.1:2379"',
    # logs
    f"level=info msg=login user=root password={S}",
    f"connecting to http://root:{S}@10.10.255.1:2379/v3",
    f"connecting to https://{S}@github.com/x",
    f"dial postgres://u:{S}@db:5432/x?sslmode=off",
    f"dsn root:{S}@tcp(10.0.0.1:3306)/db",
    f"GET /api?access_token={S}&x=1",
    f"GET /api?x=1&sig={S}",
    f"> Authorization: Bearer {S}",
    f"> authorization: Basic {BASE64}",
    f"> Proxy-Authorization: Digest username=x, response={S}",
    f"> X-Api-Key: {S}",
    f"< Set-Cookie: session={S}; Path=/",
    f"> Cookie: a={S}; b={S}",
    f"used bearer {S} for the API",
    f"token {JWT} has expired",
    f"the password is {S}",
    f"password:{S}",
    f"PrivateKey = {WIREGUARD}",
    f"PresharedKey = {WIREGUARD}",
    f"private key: {WIREGUARD}",
    "root:$6$hunter2$aHVudGVyMmh1bnRlcjI:19000:0:99999",
    "glpat-hunter2hunter2hunter2",
    "ghp_hunter2hunter2hunter2hunter2hunter2",
    PEM,
    f"key {PEM[:120]}",
    f"{BASE64}\n{BASE64}\naHVudGVyMg==",
    # JSON and YAML
    json.dumps({"password": S}),
    json.dumps({"clientSecret": S, "n": 1}),
    json.dumps({"tokens": [S, S]}),
    json.dumps({"argv": ["netproxy", "--etcd-password", S]}),
    json.dumps({"argv": [f"--etcd-password={S}"]}),
    json.dumps({"msg": json.dumps({"password": S})}),
    json.dumps({"msg": f'secret="{S} {S}"'}),
    json.dumps({"tls.key": PEM}),
    json.dumps({"psk": S, "name": "x"}, indent=1),
    f"users:\n- name: x\n  user:\n    token: {S}\n    client-key-data: LS0tLS1CRUdJTiBhSHVudGVyMg==",
    f"data:\n  password: {BASE64}",
    f"password: |\n  {S}\n  {S}\nnext: 1",
    f"  secret-key: >-\n    {S}\nnext: 1",
    f"api_key: '{S} {S}'",
)
PUBLIC = (
    "Speculation_Store_Bypass: vulnerable",
    '{"service":"default/auth-token:http","port":80}',
    "-A NETPROXY-X -m comment --comment default/reset-password:443 -j DNAT --to-destination 10.1.1.1:8080",
    '{"verdict":"pass","reason":"bypass","key":{"meta":{"key":"mark"}}}',
    '{"secret":null,"token":true}',
    f'{{"PublicKey":"{WIREGUARD}"}}',
    f"peer: {WIREGUARD}",
    "--etcd-cafile=/etc/ca.pem --etcd-keyfile=/etc/key.pem --token-auth-file /etc/tokens",
    "2026-11-23T05:08:30 http://10.10.255.1:2379 answers; 10.244.57.0/24 via 10.244.57.0",
    '{"concat":["10.96.0.10","tcp",80]}',
)


def test_there_are_fifty():
    assert len(SECRETS) >= 50


@pytest.mark.parametrize("text", SECRETS)
@pytest.mark.parametrize("around", ["{}", "05:08:30 INFO x=1\n{}\nthe next line stays\n"])
def test_a_secret_is_masked(text, around):
    written = around.replace("{}", text)
    found = masked(written.encode()).decode()
    assert not [word for word in HIDDEN if word in found], found
    assert MASK.decode() in found
    if around != "{}":
        assert found.startswith("05:08:30 INFO x=1\n")
        assert found.endswith("the next line stays\n") or "BEGIN" in text


@pytest.mark.parametrize("text", [text for text in SECRETS if text.startswith("{")])
def test_json_stays_json(text):
    json.loads(masked(text.encode()))


@pytest.mark.parametrize("text", SECRETS)
def test_also_within_json(text):
    found = masked(json.dumps({"log": text}).encode())
    assert not [word for word in HIDDEN if word in json.loads(found)["log"]], found


@pytest.mark.parametrize("text", PUBLIC)
def test_what_is_no_secret_stays(text):
    assert masked(text.encode()).decode() == text
