"""A test double of a Google service account: a real key, and its OAuth token endpoint on loopback.

The official clients sign with the key and fetch a token, as they do from Google. The other doubles accept any token.
The endpoint follows Google's documentation "Using OAuth 2.0 for Server to Server Applications".
"""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.credentials import CredentialsWithRegionalAccessBoundary

# In the background google-auth asks Google in which regions a token is valid. Tests must not ask. It is not restored,
# because every process that has a key imports this module.
setattr(  # noqa: B010  (the type checker does not know the attribute)
    CredentialsWithRegionalAccessBoundary, "_is_regional_access_boundary_lookup_required", lambda _: False
)

EMAIL = "taxi@taxi-project.iam.gserviceaccount.com"


class _TokenEndpoint(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        refused = self.server.refuses  # type: ignore[attr-defined]  # set below
        content = (
            {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            if refused
            else {"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}
        )
        body = json.dumps(content).encode()
        self.send_response(400 if refused else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class ServiceAccount:
    """A service account's key with its token endpoint, during a `with` block.

    Args:
        refuses: Whether the endpoint answers as Google does to a revoked key.
    """

    def __init__(self, *, refuses: bool = False) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _TokenEndpoint)
        self._server.refuses = refuses  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.private_key = private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    @property
    def json(self) -> str:
        """The content of the key file."""
        return json.dumps(
            {
                "type": "service_account",
                "project_id": "taxi-project",
                "private_key_id": "a-key",
                "private_key": self.private_key,
                "client_email": EMAIL,
                "token_uri": f"http://127.0.0.1:{self._server.server_address[1]}/token",
            }
        )

    @property
    def base64(self) -> str:
        """The key file in base64, as TAXI_GOOGLE_CREDENTIALS takes it."""
        return base64.b64encode(self.json.encode()).decode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
