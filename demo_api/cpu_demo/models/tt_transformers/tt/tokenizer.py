"""The model's own chat template and tokenizer, which the engine offers at its local socket only."""

import http.client
import json
import socket


class Tokenizer:
    """Turns prompts into tokens.

    Args:
        address: the path of the engine's Unix socket.
        key: the secret that the engine asks for.
    """

    def __init__(self, address, key):
        self._connection = _UnixConnection(address)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def encode_prompt(self, prompt, instruct):
        """The text that the model reads for this prompt, and that text's tokens."""
        return self.encode_conversation([{"role": "user", "content": prompt}]) if instruct else self._encode(prompt)

    def encode_conversation(self, messages):
        """The same for several messages."""
        return self._encode(self._post("/apply-template", {"messages": messages})["prompt"])

    def _encode(self, text):
        tokens = self._post("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
        return text, tokens

    def close(self):
        self._connection.close()

    def _post(self, path, body):
        self._connection.request("POST", path, json.dumps(body), self._headers)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        self._connection.close()  # the engine would, after some seconds
        assert response.status == 200, f"The engine refused the prompt: {answer['error']['message']}"
        return answer


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, address):
        super().__init__("localhost")
        self._address = address

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._address)
