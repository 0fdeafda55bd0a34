//! The catalogue: every code that Foldstream itself answers, once.

use std::time::Duration;

use http::StatusCode;

macro_rules! catalogue {
    ($($variant:ident = $status:ident, $code:literal, $title:literal, $doc:literal;)*) => {
        /// A problem that Foldstream itself answers. The set is closed; documentation is
        /// generated from [`ProblemKind::ALL`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemKind { $(#[doc = $doc] $variant,)* }

        impl ProblemKind {
            /// Every kind, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// The stable code; the problem's `type` is `/problems/<code>`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The title, the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// One sentence: when it is answered and what to do.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

catalogue! {
    BadRequest = BAD_REQUEST, "bad-request", "The request is not valid HTTP",
        "The request breaks a rule of HTTP itself, such as a missing or doubled Host header.";
    MalformedJson = BAD_REQUEST, "malformed-json", "The body is not valid JSON",
        "The body is not strict JSON: syntax, encoding, a member given twice, or too deep.";
    InvalidHeader = BAD_REQUEST, "invalid-header", "A header is not valid",
        "A request header has a value outside its grammar; `errors` names it.";
    InvalidPath = BAD_REQUEST, "invalid-path", "The path is not valid",
        "A part of the path, such as an id, is outside its grammar.";
    InvalidQuery = BAD_REQUEST, "invalid-query", "The query is not valid",
        "A query parameter is unknown, given twice or outside its grammar.";
    CursorInvalid = BAD_REQUEST, "cursor-invalid", "The cursor is not valid",
        "The cursor was changed, or belongs to another query; start again without it.";
    TokenInvalid = BAD_REQUEST, "token-invalid", "The consistency token is not valid",
        "The consistency token cannot be read; send one exactly as it was answered.";
    NotFound = NOT_FOUND, "not-found", "Not found",
        "There is nothing under this path.";
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed",
        "The path exists but not with this method; `Allow` lists the methods.";
    NotAcceptable = NOT_ACCEPTABLE, "not-acceptable", "Not acceptable",
        "None of the media types in `Accept` can be answered here.";
    RequestTimeout = REQUEST_TIMEOUT, "request-timeout", "The request took too long to arrive",
        "The body did not arrive in time; send the request again.";
    IdempotencyKeyInProgress = CONFLICT, "idempotency-key-in-progress",
        "The same request is still running",
        "A request with this idempotency key has not ended yet; ask again shortly.";
    Contended = CONFLICT, "contended", "Others changed the stream at the same time",
        "Other commands changed the stream at every try; send the command again.";
    TokenOfOtherStore = CONFLICT, "token-of-other-store", "The token is of another store",
        "The consistency token was made by another store than the one answering; drop it.";
    CursorExpired = GONE, "cursor-expired", "The cursor has expired",
        "The cursor is of an earlier build of the read model; start again without it.";
    VersionMismatch = PRECONDITION_FAILED, "version-mismatch", "The version is another",
        "The stream is not at the version given in `If-Match`; read it again, then decide.";
    Exists = PRECONDITION_FAILED, "exists", "It exists already",
        "`If-None-Match: *` was given and the stream exists.";
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large",
        "The body is longer than this route takes.";
    UriTooLong = URI_TOO_LONG, "uri-too-long", "The URI is too long",
        "The path and query together are longer than the server takes.";
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type",
        "The media type is not supported",
        "The body must be `application/json` in UTF-8 without a content coding.";
    InvalidBody = UNPROCESSABLE_ENTITY, "invalid-body", "The body does not fit",
        "The body is JSON but can never be accepted; `errors` lists where and why.";
    IdempotencyKeyReused = UNPROCESSABLE_ENTITY, "idempotency-key-reused",
        "The idempotency key was used for another request",
        "The idempotency key belongs to an earlier, different request; take a new key.";
    PreconditionRequired = PRECONDITION_REQUIRED, "precondition-required",
        "A precondition is required",
        "This command must say with `If-Match` which version it was decided on.";
    HeaderTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "header-too-large",
        "The headers are too large",
        "The headers together, or one of them, are longer than the server takes.";
    Internal = INTERNAL_SERVER_ERROR, "internal", "Something failed inside",
        "A fault of the service itself; quote the trace id when you report it.";
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable",
        "Something the service needs is down; the request had no effect, try again later.";
    Overloaded = SERVICE_UNAVAILABLE, "overloaded", "Too many requests at once",
        "The service is at its limit; the request had no effect, try again later.";
    OutboxFull = SERVICE_UNAVAILABLE, "outbox-full", "Too many events wait for publication",
        "Events are not published fast enough, so no new ones are taken; try again later.";
    ReadModelBehind = SERVICE_UNAVAILABLE, "read-model-behind",
        "The read model has not caught up",
        "The read model is not yet where the consistency token asks; try again later.";
    OutcomeUnknown = GATEWAY_TIMEOUT, "outcome-unknown", "The outcome is not known",
        "The deadline passed while the outcome was open; repeat it with the same key to learn it.";
}

impl ProblemKind {
    /// When to come back, for the kinds that always say so.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        if self == Self::IdempotencyKeyInProgress {
            return Some(Duration::from_secs(1));
        }
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(1))
    }

    /// The reference to the kind's documentation, the problem's `type`.
    #[must_use]
    pub fn type_path(self) -> String {
        format!("/problems/{}", self.code())
    }
}
