"""Accounts: who holds a wallet and owns keys, how they prove who they are, and what their sign-up looked like.

No table holds anything that could be used: passwords are hashed under a secret, tokens and recovery codes are keyed
digests, and secrets of second factors are derived from a salt and a key that is not in the database.
"""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text

from dragonfly.infra.database import BIG, SCHEMA

accounts = Table(
    "accounts",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("email", Text),
    Column("verified_at_ns", BIG),
    Column("created_at_ns", BIG, nullable=False),
    Column("frozen_at_ns", BIG),
    sqlite_strict=True,
    info={
        "purpose": "Who holds a wallet and owns keys",
        "category": "account",
        "lifetime": "account",
        "columns": {
            "id": "Names the account everywhere else",
            "name": "What the holder wants to be called",
            "email": "Where the holder is reached",
            "verified_at_ns": "When the address was proven",
            "created_at_ns": "When the account was opened",
            "frozen_at_ns": "When an operator stopped it",
        },
    },
)

people = Table(
    "people",
    SCHEMA,
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("address_folded", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("password_hash", Text),
    Column("password_set_at_ns", BIG),
    Column("browser_key", Text),
    CheckConstraint("role IN ('customer', 'operator')", name="role"),
    sqlite_strict=True,
    info={
        "purpose": "Who may sign in to an account, and as what",
        "category": "account",
        "lifetime": "account",
        "columns": {
            "address_folded": "The address in small letters, to sign in with",
            "role": "Customer or operator",
            "language": "Of mails and pages",
            "password_hash": "Argon2id of the password under a secret that is not in the database",
            "password_set_at_ns": "When it was chosen",
            "browser_key": "Fingerprint of the browser's key that registered, until the address is proven",
        },
    },
)

consents = Table(
    "consents",
    SCHEMA,
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("terms_version", Text, primary_key=True),
    Column("policy_version", Text, primary_key=True),
    Column("is_adult", Integer, nullable=False),
    Column("accepted_at_ns", BIG, nullable=False),
    CheckConstraint("is_adult = 1", name="adult"),
    sqlite_strict=True,
    info={
        "purpose": "What was accepted at registration: terms, policy, being 18 or older",
        "category": "account",
        "lifetime": "account",
        "columns": {
            "terms_version": "Which terms",
            "policy_version": "Which privacy policy",
            "is_adult": "That the person said to be 18 or older; no date of birth is asked for",
            "accepted_at_ns": "When",
        },
    },
)

identities = Table(
    "identities",
    SCHEMA,
    Column("provider", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("address", Text, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    Index("ix_identities_account_id", "account_id"),
    sqlite_strict=True,
    info={
        "purpose": "Accounts elsewhere that one may sign in with",
        "category": "account",
        "lifetime": "account",
        "columns": {
            "provider": "Who vouches: google or discord",
            "subject": "The provider's lasting id of the person",
            "address": "The verified address that the provider named when it was linked",
        },
    },
)

sessions = Table(
    "sessions",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("browser_key", Text, nullable=False),
    Column("has_second_factor", Integer, nullable=False),
    Column("access_digest", LargeBinary, nullable=False, unique=True),
    Column("access_expires_at_ns", BIG, nullable=False),
    Column("refresh_digest", LargeBinary, nullable=False),
    Column("previous_access_digest", LargeBinary),
    Column("previous_refresh_digest", LargeBinary),
    Column("refreshed_at_ns", BIG, nullable=False),
    Column("proven_at_ns", BIG, nullable=False),
    Column("expires_at_ns", BIG, nullable=False),
    Column("ends_at_ns", BIG, nullable=False),
    Column("end_reason", Text),
    Column("device", Text, nullable=False),
    Column("ip", Text, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    CheckConstraint("length(access_digest) = 32 AND length(refresh_digest) = 32", name="digests"),
    CheckConstraint("has_second_factor IN (0, 1)", name="second_factor"),
    Index("ix_sessions_account_id", "account_id", "created_at_ns"),
    Index("ix_sessions_previous_access_digest", "previous_access_digest"),
    Index("ix_sessions_ends_at_ns", "ends_at_ns"),
    sqlite_strict=True,
    info={
        "purpose": "Signed-in browsers: keyed digests to recognise them, and what their owner is shown",
        "category": "account",
        "lifetime": "30 days after it ended",
        "since": "ends_at_ns",
        "columns": {
            "browser_key": "Fingerprint of the browser's key, without which its tokens are worth nothing",
            "has_second_factor": "Whether a second factor was shown",
            "access_digest": "Keyed hash of the access token",
            "access_expires_at_ns": "Until when that one is good",
            "refresh_digest": "Keyed hash of the refresh token",
            "previous_access_digest": "That of the token before, for requests under way",
            "previous_refresh_digest": "That of the token before, for an answer that was lost",
            "refreshed_at_ns": "When the tokens were changed",
            "proven_at_ns": "When the person last proved who they are",
            "expires_at_ns": "Until when it can be refreshed at all",
            "ends_at_ns": "When it ended or will end unless it is refreshed",
            "end_reason": "Why it ended, a word from a closed list",
            "device": "What the browser calls itself",
            "ip": "Address at sign-in, against fraud",
        },
    },
)
"""`ends_at_ns` in the past: the session is over, also when `expires_at_ns` is not reached."""

second_factors = Table(
    "second_factors",
    SCHEMA,
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    Column("seal_version", Integer, nullable=False),
    Column("last_step", BIG, nullable=False),
    Column("confirmed_at_ns", BIG),
    sqlite_strict=True,
    info={
        "purpose": "Second factors (time-based codes)",
        "category": "account",
        "lifetime": "account",
        "columns": {
            "salt": "What the secret is derived from, with a key that is not in the database",
            "seal_version": "Which key",
            "last_step": "The last code's time, so that no code is taken twice",
            "confirmed_at_ns": "When the first code was right; before that it is not asked for",
        },
    },
)

recovery_codes = Table(
    "recovery_codes",
    SCHEMA,
    Column("digest", LargeBinary, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("used_at_ns", BIG),
    CheckConstraint("length(digest) = 32", name="digest"),
    Index("ix_recovery_codes_account_id", "account_id"),
    sqlite_strict=True,
    info={
        "purpose": "Codes for when the second factor is lost",
        "category": "account",
        "lifetime": "account",
        "columns": {"digest": "Keyed hash of the code", "used_at_ns": "When it was used up"},
    },
)

one_time_links = Table(
    "one_time_links",
    SCHEMA,
    Column("digest", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id")),
    Column("browser_key", Text),
    Column("address", Text),
    Column("details", Text),
    Column("attempts", Integer, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    Column("expires_at_ns", BIG, nullable=False),
    Column("used_at_ns", BIG),
    CheckConstraint("length(digest) = 32", name="digest"),
    Index("ix_one_time_links_account_id", "account_id", "kind"),
    Index("ix_one_time_links_expires_at_ns", "expires_at_ns"),
    sqlite_strict=True,
    info={
        "purpose": "Links in mails and steps of a sign-in that work once and for a short time",
        "category": "account",
        "lifetime": "1 days after it expired",
        "since": "expires_at_ns",
        "columns": {
            "digest": "Keyed hash of the token in the link",
            "kind": "What it is for",
            "browser_key": "Fingerprint of the only browser's key that may use it",
            "address": "The address that it proves",
            "details": "Names from a closed list, such as the identity provider, and accepted versions",
            "attempts": "How often it was tried in vain",
            "expires_at_ns": "Until when it works",
            "used_at_ns": "When it was used or made void",
        },
    },
)

sign_ups = Table(
    "sign_ups",
    SCHEMA,
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("network_digest", LargeBinary, nullable=False),
    Column("risk_score", Integer, nullable=False),
    Column("risk_reasons", Text, nullable=False),
    Column("trial_nusd", BIG, nullable=False),
    Column("trial_at_ns", BIG),
    Column("created_at_ns", BIG, nullable=False),
    CheckConstraint("risk_score BETWEEN 0 AND 100", name="risk_score"),
    Index("ix_sign_ups_network_digest", "network_digest", "created_at_ns"),
    Index("ix_sign_ups_trial_at_ns", "trial_at_ns"),
    Index("ix_sign_ups_created_at_ns", "created_at_ns"),
    sqlite_strict=True,
    info={
        "purpose": "Tell sign-ups that repeat each other, for trial credit and operators",
        "category": "account",
        "lifetime": "90 days",
        "since": "created_at_ns",
        "basis": "legitimate interest",
        "columns": {
            "network_digest": "Keyed hash of the network it came from",
            "risk_score": "0 to 100",
            "risk_reasons": "Words from a closed list that explain the score",
            "trial_nusd": "Trial credit that was granted",
            "trial_at_ns": "When",
        },
    },
)

trial_persons = Table(
    "trial_persons",
    SCHEMA,
    Column("person_digest", LargeBinary, primary_key=True),
    Column("granted_at_ns", BIG, nullable=False),
    CheckConstraint("length(person_digest) = 32", name="digest"),
    sqlite_strict=True,
    info={
        "purpose": "Trial credit once per person",
        "category": "account",
        "lifetime": "730 days",
        "since": "granted_at_ns",
        "basis": "legitimate interest",
        "columns": {
            "person_digest": "Keyed hash of the mailbox that had its trial; it outlives the account",
            "granted_at_ns": "When",
        },
    },
)

attempt_budgets = Table(
    "attempt_budgets",
    SCHEMA,
    Column("digest", LargeBinary, primary_key=True),
    Column("full_at_ns", BIG, nullable=False),
    CheckConstraint("length(digest) = 32", name="digest"),
    Index("ix_attempt_budgets_full_at_ns", "full_at_ns"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "Count attempts against guessing and flooding, for all workers together",
        "category": "account",
        "lifetime": "1 hours",
        "since": "full_at_ns",
        "basis": "legitimate interest",
        "columns": {
            "digest": "Keyed hash of what is counted: a network, an address or an account",
            "full_at_ns": "When all attempts are allowed again",
        },
    },
)

shown_proofs = Table(
    "shown_proofs",
    SCHEMA,
    Column("digest", LargeBinary, primary_key=True),
    Column("shown_at_ns", BIG, nullable=False),
    CheckConstraint("length(digest) = 32", name="digest"),
    Index("ix_shown_proofs_shown_at_ns", "shown_at_ns"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "Take no proof of a browser's key twice, on whichever worker",
        "category": "account",
        "lifetime": "1 hours",
        "since": "shown_at_ns",
        "basis": "legitimate interest",
        "columns": {"digest": "Hash of the proof's random id", "shown_at_ns": "When it was shown"},
    },
)
"""A proof is good for two minutes at most; the hour is what cleaning up may take."""
