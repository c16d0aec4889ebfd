"""Signatures of browsers' keys: ECDSA on P-256, as JOSE writes it."""

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

ALGORITHM = "ES256"


def fingerprint_of_signer(compact: str, x: str, y: str) -> str | None:
    """The fingerprint (RFC 7638) of the public key (x, y), when it signed the compact JWS; else None."""
    try:
        public = ECKey.import_key({"kty": "EC", "crv": "P-256", "x": x, "y": y})
        jws.deserialize_compact(compact, public, algorithms=[ALGORITHM])
        return public.thumbprint()
    except (JoseError, ValueError, TypeError):
        return None
