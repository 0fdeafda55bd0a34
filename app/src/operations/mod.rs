//! What operators ask: each command here has a twin among the admin routes, and only asks it.

mod client;
mod doctor;
mod local_checks;
pub(crate) mod outbox;
mod routes;
mod show;
pub(crate) mod streams;

pub(crate) use routes::{caught_up, routes};
pub(crate) use show::{
    config_show, doctor, projections_ls, projections_show, status, table, topics_ls,
};
