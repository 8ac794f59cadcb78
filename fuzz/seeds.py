"""Makes the seeds: small inputs of every form that a target knows, out of ../fixtures and a few lines of its own."""

import json
import pathlib
import subprocess

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE.parent / "fixtures"


def write(target, name, data):
    folder = HERE / "seeds" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def lines(*objects):
    return b"".join(json.dumps(o, separators=(",", ":")).encode() + b"\n" for o in objects)


# Tapes: as files (first byte odd), and as the contents of their frames (even).
HEADER = {"type": "header", "version": {"major": 1, "minor": 1}, "created_by": "t", "source": "s", "params": {}}
REQUEST = {"type": "request", "index": 0, "offset_ns": 0, "method": "POST", "path": "/v1/completions",
           "body": "{\"prompt\":\"a\"}", "input_tokens": 1, "session": {"id": "s", "turn": 0}}
BINARY = {"type": "request", "index": 1, "offset_ns": 5, "method": "POST", "path": "/", "body_base64": "/w=="}
RESPONSE = {"type": "response", "index": 0, "status": 200, "headers": [["content-type", "text/event-stream"]],
            "head_ns": 1, "chunks": [[1, 2], [3, 1]], "body": "abc", "end_ns": 9, "outcome": "complete"}
FOOTER = {"type": "footer", "requests": 2, "responses": 1, "input_tokens": 1, "output_tokens": 0, "body_bytes": 15,
          "workload_digest": "00", "index": [0, 1]}
frames = [lines(HEADER), lines(REQUEST), lines(BINARY, RESPONSE), lines(FOOTER)]
for target in ["tape_reader", "tape_salvage"]:
    write(target, "packed", b"\x00" + b"\x00".join(frames))
    write(target, "small", b"\x01" + (FIXTURES / "tapes/small.tape.zst").read_bytes())
    write(target, "cut", b"\x01" + (FIXTURES / "tapes/small.tape.zst").read_bytes()[:400])

# Streams and documents.
for path in sorted(FIXTURES.glob("wire/*")):
    if path.suffix in [".sse", ".json"]:
        write("sse_client", path.name, path.read_bytes()[:4000])
write("sse_client", "odd", b"\xef\xbb\xbf: c\r\rdata:a\ndata: b\n\nevent: x\rdata\r\n\r\ndata: [DONE]")

# Bodies.
CHAT = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True}, "max_completion_tokens": 4, "n": 2,
        "logprobs": True, "top_logprobs": 2, "stop": ["a"], "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}}, "temperature": 0.5}
TEXT = {"model": "m", "prompt": ["a", "b"], "max_tokens": 3, "logprobs": 1, "echo": True, "stop_token_ids": [5],
        "return_token_ids": True, "min_tokens": 1}
for number, body in enumerate([CHAT, TEXT, {"model": "m", "input": "hi", "max_output_tokens": 5, "stream": True},
                               {"model": "m", "input": ["a", [1, 2]], "encoding_format": "base64", "dimensions": 4}]):
    write("mock_request", f"body-{number}", bytes([number]) + json.dumps(body).encode())
write("mock_request", "ids", b"\x01" + json.dumps({"model": "m", "prompt": [[1, 2], [3]]}).encode())

# Foreign files, in the order of the formats.
SHARE = [{"id": "1", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}]
FILES = [
    lines({"text": "hi", "output_length": 3}, {"session_id": "s", "turns": [{"text": "a"}, {"text": "b", "delay": 5}]}),
    b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n",
    lines({"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 20, "output_length": 3,
           "type": "text", "turn": 1, "hash_ids": [1, 2]}),
    b"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n",
    b"a prompt\n" + lines([{"role": "user", "content": "x"}], {"messages": [], "max_tokens": 3}),
    lines({"timestamp": 1.5, "body": {"model": "m", "messages": [{"role": "user", "content": "x"}]}}),
    lines({"timestamp": 0, "prompt_tokens": 5, "output_tokens": 6}),
    lines({"index": 0, "offset_ns": 0, "method": "POST", "path": "/v1/completions", "body": "{}", "input_tokens": 2}),
    lines({"timestamp": 27482, "input_length": 1030, "output_length": 52, "hash_ids": [46, 47, 2366]}),
    lines({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}}),
    lines({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}),
    json.dumps(SHARE).encode(),
    lines({"prompt": "p", "output_tokens": 3}, {"prompt": "p"}),
    lines({"timestamp": 1, "input_length": 40, "output_length": 2, "hash_ids": [1, 2, 3]}),
]
for number, data in enumerate(FILES):
    write("importers", f"format-{number}", bytes([number]) + data)
    write("importers", f"format-{number}-counted", bytes([number + 126 + 14]) + data)
packed = subprocess.run(["zstd", "-q", "-c"], input=FILES[8], stdout=subprocess.PIPE, check=True).stdout
write("importers", "packed", b"\x08" + packed)
