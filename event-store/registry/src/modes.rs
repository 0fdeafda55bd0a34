//! Modes: whether a subject, or the whole registry, takes changes.

use sqlx::PgConnection;

use crate::levels::GLOBAL;
use crate::refusal::Refusal;
use crate::store::Unreadable;

/// Whether schemas, versions and levels may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They may.
    Writable,
    /// They may not.
    Frozen,
    /// They may not, whatever a subject says for itself: for the registry as a whole.
    AllFrozen,
}

impl Mode {
    /// The mode of a registry in which none was set.
    pub(crate) const DEFAULT: Self = Self::Writable;

    const ALL: [Self; 3] = [Self::Writable, Self::Frozen, Self::AllFrozen];

    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Writable => "READWRITE",
            Self::Frozen => "READONLY",
            Self::AllFrozen => "READONLY_OVERRIDE",
        }
    }

    /// The mode of that name, in any case.
    ///
    /// # Errors
    /// 42204 where there is none, 42205 for the one that this registry does not have.
    pub(crate) fn from_name(name: &str) -> Result<Self, Refusal> {
        if name.eq_ignore_ascii_case("IMPORT") {
            return Err(Refusal::import_not_supported());
        }
        let found = Self::ALL.into_iter().find(|mode| mode.name().eq_ignore_ascii_case(name));
        found.ok_or_else(Refusal::invalid_mode)
    }
}

/// The mode set for a subject; that of [`GLOBAL`] holds for the others.
pub(crate) async fn mode(
    connection: &mut PgConnection,
    subject: &str,
) -> Result<Option<Mode>, Refusal> {
    let name: Option<String> =
        sqlx::query_scalar("select mode from schema_registry.modes where subject = $1")
            .bind(subject)
            .fetch_optional(connection)
            .await?;
    let known = |name: String| {
        let unknown = |_| Refusal::store(&Unreadable(format!("stored mode {name} is unknown")));
        Mode::from_name(&name).map_err(unknown)
    };
    name.map(known).transpose()
}

/// The mode that holds for a subject: its own, else the global one, which can overrule it.
pub(crate) async fn effective_mode(
    connection: &mut PgConnection,
    subject: &str,
) -> Result<Mode, Refusal> {
    let global = mode(&mut *connection, GLOBAL).await?.unwrap_or(Mode::DEFAULT);
    if subject == GLOBAL || global == Mode::AllFrozen {
        return Ok(global);
    }
    Ok(mode(connection, subject).await?.unwrap_or(global))
}

/// Whether the subject takes changes now.
///
/// # Errors
/// 42205 where it does not.
pub(crate) async fn require_writable(
    connection: &mut PgConnection,
    subject: &str,
) -> Result<(), Refusal> {
    match effective_mode(connection, subject).await? {
        Mode::Writable => Ok(()),
        Mode::Frozen | Mode::AllFrozen => Err(Refusal::read_only(subject)),
    }
}

/// Sets the mode of a subject, or of [`GLOBAL`].
pub(crate) async fn set_mode(
    connection: &mut PgConnection,
    subject: &str,
    mode: Mode,
) -> Result<(), Refusal> {
    sqlx::query(
        "insert into schema_registry.modes (subject, mode) values ($1, $2)
         on conflict (subject) do update set mode = excluded.mode",
    )
    .bind(subject)
    .bind(mode.name())
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets the mode of a subject and answers what it was.
pub(crate) async fn forget_mode(
    connection: &mut PgConnection,
    subject: &str,
) -> Result<Option<Mode>, Refusal> {
    let before = mode(&mut *connection, subject).await?;
    sqlx::query("delete from schema_registry.modes where subject = $1")
        .bind(subject)
        .execute(connection)
        .await?;
    Ok(before)
}
