"""Bodies that are wrong, hostile or large: a clear 4xx or a correct answer, and nobody else waits."""

import asyncio
import json
import time

import pytest

from dragonfly.settings import LimitSettings
from tests.fakes.upstream import answer
from tests.http.rig import MODEL, UPSTREAM_SECRET, Rig, chat_body, post
from tests.http.test_heads import WHOLE

MESSAGES = b'"messages":[{"role":"user","content":"Hello"}]'
PARTS = b'{"model":"' + MODEL.encode() + b'","messages":[{"role":"user","content":[%b]}]}'
SECRET_WORD = "canary5d1f"


def rig(**options: object) -> Rig:
    return Rig([answer(200, WHOLE)], **options)  # type: ignore[arg-type]


def body(text: str) -> bytes:
    return b'{"model":"' + MODEL.encode() + b'",' + MESSAGES + text.encode() + b"}"


@pytest.mark.parametrize(
    ("name", "sent", "code"),
    [
        ("nothing", b"", "invalid_json"),
        ("no JSON", b"hello", "invalid_json"),
        ("half an object", b'{"model":', "invalid_json"),
        ("an array", b"[1]", "invalid_json"),
        ("a text", b'"x"', "invalid_json"),
        ("something behind the object", body("") + b"x", "invalid_json"),
        ("two objects", body("") * 2, "invalid_json"),
        ("NaN", body(',"temperature":NaN'), "invalid_json"),
        ("Infinity", body(',"temperature":Infinity'), "invalid_json"),
        ("a control character", body(',"user":"a\nb"'), "invalid_json"),
        ("a lone surrogate in a name", body(',"\\ud800":1'), "invalid_json"),
        ("invalid UTF-8", body(',"user":"~"').replace(b"~", b"\xff\xfe"), "invalid_json"),
        ("overlong UTF-8", body(',"user":"~"').replace(b"~", b"\xc0\xaf"), "invalid_json"),
        ("deep arrays", body(',"x":' + "[" * 5_000 + "]" * 5_000), "invalid_json"),
        ("deep objects", body(',"x":' + '{"a":' * 5_000 + "1" + "}" * 5_000), "invalid_json"),
        ("model twice", body(',"model":"gpt-6-astra"'), "duplicate_field"),
        ("model twice, once escaped", body(',"\\u006dodel":"gpt-6-astra"'), "duplicate_field"),
        ("max_tokens twice", body(',"max_tokens":1,"max_tokens":99'), "duplicate_field"),
        ("any name twice", body(',"seed":1,"seed":2'), "duplicate_field"),
        ("a name twice between blanks", body(' , "seed" : 1 ,\n"seed": 2 '), "duplicate_field"),
        ("another case", body(',"Max_Tokens":5'), "invalid_parameter"),
        ("Model beside model", body(',"Model":"gpt-6-astra"'), "invalid_parameter"),
        ("max_tokens zero", body(',"max_tokens":0'), "invalid_parameter"),
        ("max_tokens negative", body(',"max_tokens":-1'), "invalid_parameter"),
        ("max_tokens as text", body(',"max_tokens":"5"'), "invalid_parameter"),
        ("max_tokens true", body(',"max_tokens":true'), "invalid_parameter"),
        ("max_tokens as a fraction", body(',"max_tokens":1.5'), "invalid_parameter"),
        ("max_tokens huge", body(',"max_tokens":' + "9" * 400), "invalid_parameter"),
        ("max_tokens 1e999", body(',"max_tokens":1e999'), "invalid_parameter"),
        ("n zero", body(',"n":0'), "invalid_parameter"),
        ("n huge", body(',"n":1000000'), "invalid_parameter"),
        ("stream as text", body(',"stream":"true"'), "invalid_parameter"),
        ("stream as a number", body(',"stream":1'), "invalid_parameter"),
        ("stream_options as a list", body(',"stream_options":[]'), "invalid_parameter"),
        ("models as a text", body(',"models":"x"'), "invalid_parameter"),
        ("too many models", body(',"models":' + json.dumps([str(n) for n in range(99)])), "invalid_parameter"),
        ("an unknown wish", body(',"provider":{"zdr_typo":true}'), "invalid_parameter"),
        ("an unknown sort", body(',"provider":{"sort":"luck"}'), "invalid_parameter"),
        ("a negative price", body(',"provider":{"max_price":{"prompt":-1}}'), "invalid_parameter"),
        ("no messages", b'{"model":"' + MODEL.encode() + b'"}', "invalid_parameter"),
        ("empty messages", b'{"model":"' + MODEL.encode() + b'","messages":[]}', "invalid_parameter"),
        ("messages that are blank", b'{"model":"' + MODEL.encode() + b'","messages":[   ]}', "invalid_parameter"),
        ("too many fields", body("," + ",".join(f'"f{n}":1' for n in range(300))), "invalid_parameter"),
        ("very many fields", body("," + ",".join(f'"f{n}":1' for n in range(100_000))), "invalid_parameter"),
        (
            "long options",
            body(',"stream_options":{' + ",".join(f'"f{n}":1' for n in range(9_000)) + "}"),
            "invalid_parameter",
        ),
        ("a long s in a name", body(',"max_token\u017f":5').replace(b"\\u017f", "ſ".encode()), "invalid_parameter"),
        ("a field that lifts the output", body(',"best_of":5'), "invalid_parameter"),
        ("an answer with sound", body(',"modalities":["text","audio"]'), "invalid_parameter"),
        ("a voice", body(',"audio":{"voice":"alloy"}'), "invalid_parameter"),
        ("a part that nobody prices", PARTS % b'{"type":"image_embeds"}', "invalid_parameter"),
        ("a budget that is no number", body(',"thinking":{"budget_tokens":"9"}'), "invalid_parameter"),
        (
            "a tool of the provider",
            body(',"tools":[{"type":"builtin_function","function":{"name":"x"}}]'),
            "invalid_parameter",
        ),
        ("tools as text", body(',"tools":"x"'), "invalid_parameter"),
        ("messages as text", b'{"model":"' + MODEL.encode() + b'","messages":"hi"}', "invalid_parameter"),
        ("no model", b"{" + MESSAGES + b"}", "invalid_parameter"),
        ("model as a number", b'{"model":5,' + MESSAGES + b"}", "invalid_parameter"),
        ("model null", b'{"model":null,' + MESSAGES + b"}", "invalid_parameter"),
    ],
)
async def test_a_body_that_is_wrong_is_refused_with_a_code(name: str, sent: bytes, code: str) -> None:
    async with rig() as one:
        got = await one.ask(sent)
        assert got.status == 400, name
        assert got.code == code, name
        assert set(got.json()["error"]) >= {"message", "type", "param", "code", "request_id"}
        assert got.headers["x-request-id"] == got.json()["error"]["request_id"]
        assert not one.upstream.requests
        assert not one.purse.settlements
        await one.at_rest()


@pytest.mark.parametrize(
    "sent",
    [
        body(""),
        body(',"temperature":1e999'),
        body(',"seed":123456789012345678901234567890'),
        body(',"stream":null,"n":null,"stop":null'),
        body(',"usage":null,"models":null'),
        b" \r\n" + body("").replace(b",", b" ,\n\t").replace(b":", b" : ") + b"\n ",
        body(',"tools":[{"type":"function","function":{"name":"f","parameters":{"model":"x","model":"y"}}}]'),
        body(',"user":"\\u00e9\\u4f60 \\ud83d\\ude00"'),
        body(',"user":"你好 é"'),
        body(',"é":1'),
        body(',"provider":null'),
        body(',"max_tokens":100000000'),
        body(',"x":[' + ",".join(["1"] * 100_000) + "]"),
        body(',"x":' + "[" * 300 + "]" * 300),
    ],
)
async def test_whatever_is_not_ours_passes_untouched(sent: bytes) -> None:
    async with rig() as one:
        got = await one.ask(sent)
        assert got.status == 200
        forwarded = json.loads(one.upstream.requests[0].body)
        expected = {**json.loads(sent), "model": "deepseek-v4-flash"}
        for ours in ("models", "provider", "usage"):
            expected.pop(ours, None)
        assert forwarded == expected


async def test_no_error_repeats_what_was_sent() -> None:
    word = SECRET_WORD.encode()
    async with rig() as one:
        for sent in (
            word,
            b'{"' + word + b'":',
            chat_body(model=SECRET_WORD),
            chat_body(stream=SECRET_WORD),
            chat_body(provider={SECRET_WORD: 1}),
            chat_body(models=[{SECRET_WORD: 1}]),
            b'{"%b":1,"%b":2,' % (word, word) + MESSAGES + b',"model":"x"}',
        ):
            got = await one.ask(sent)
            assert 400 <= got.status < 500
            assert SECRET_WORD not in got.body.decode() + str(got.headers)
        got = await one.ask(chat_body(), key=b"sk-df-" + word)
        assert got.status == 401
        assert SECRET_WORD not in got.body.decode()
        assert SECRET_WORD not in str(one.reports)
        assert UPSTREAM_SECRET not in str(one.reports)


async def test_wrong_methods_paths_types_and_missing_keys_have_their_own_answers() -> None:
    async with rig() as one:
        get = await one.send_raw(b"GET /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n")
        assert (get.status, get.code) == (405, "method_not_allowed")
        lost = await one.ask(path="/v1/nothing")
        assert (lost.status, lost.code) == (404, "not_found")
        form = post(chat_body()).replace(b"application/json", b"text/html")
        assert (await one.send_raw(form)).status == 415
        packed = await one.ask(headers=["Content-Encoding: gzip"])
        assert packed.status == 415
        bare = post(chat_body()).replace(b"Authorization", b"X-Other")
        got = await one.send_raw(bare)
        assert (got.status, got.code) == (401, "missing_api_key")
        assert got.headers["www-authenticate"] == "Bearer"
        other = await one.ask(key=b"sk-df-wrong")
        assert (other.status, other.code) == (401, "invalid_api_key")
        alias = await one.ask(path="/api/v1/chat/completions")
        assert alias.status == 200
        by_header = await one.send_raw(post(chat_body()).replace(b"Authorization: Bearer ", b"x-api-key: "))
        assert by_header.status == 200


@pytest.mark.parametrize("megabytes", [1, 10])
async def test_a_large_prompt_is_served_and_others_are_not_kept_waiting(megabytes: int) -> None:
    """Small requests run beside the large one; the loop is never held for more than 50 ms."""
    text = 'line of code: print(\\"x\\")\\n é你' * (megabytes * 1_000_000 // 36)
    large = body("").replace(b"Hello", text.encode())
    assert len(large) > megabytes * 900_000
    async with rig() as one:
        stalls: list[float] = []
        done = asyncio.Event()

        async def watch() -> None:
            while not done.is_set():
                before = time.thread_time()  # of the processor: what else runs on the machine does not count
                await asyncio.sleep(0)
                stalls.append(time.thread_time() - before)

        watcher = asyncio.create_task(watch())
        client = await one.connect()
        client.send(post(large))
        got = await client.receive()
        done.set()
        await watcher
        assert got.status == 200
        assert len(one.upstream.requests[0].body) > megabytes * 900_000
        # The client and the provider of this test run in the same loop; the bound holds for all three together.
        assert sorted(stalls)[-3] < 0.05
        await one.at_rest()


async def test_a_body_beyond_the_limit_is_refused_before_it_is_read() -> None:
    async with rig(limits=LimitSettings(body_bytes_max=100_000)) as one:
        client = await one.connect()
        client.send(post(b"x" * 200_000)[:1_000])
        got = await client.receive()
        assert (got.status, got.code) == (413, "request_too_large")


async def test_all_bodies_together_are_bounded() -> None:
    limits = LimitSettings(body_bytes_open_max=2 * 1024 * 1024)
    async with rig(limits=limits) as one:
        clients = [await one.connect() for _ in range(4)]
        whole = post(b"x" * 1_000_000)
        for client in clients:
            client.send(whole[:-10])
        answers = [asyncio.create_task(client.receive()) for client in clients]
        done, rest = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert {(await one).status for one in done} == {503}
        for one_answer in rest:
            one_answer.cancel()
        for client in clients:
            client.reset()
        while one.lanes:
            await asyncio.sleep(0)
        await one.at_rest()
