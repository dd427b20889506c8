//! `/_postern/border/…`.

mod decisions;
mod peers;
mod releases;

use crate::officer::Failure;
use axum::Json;
use postern_client::{Api, http::ApiError};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;

/// Entries of one answer, at most.
const MOST: usize = 1_000;
/// Entries of one answer where nothing is said.
const USUAL: usize = 100;

type Answer<T> = Result<Json<T>, Failure>;

pub fn routes() -> OpenApiRouter<Api> {
    peers::routes().merge(decisions::routes()).merge(releases::routes())
}

/// Where a list goes on, and how much of it is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Paging {
    /// `next` of the answer before.
    from: Option<String>,
    /// How many at most: up to 1,000; without, 100.
    limit: Option<usize>,
}

impl Paging {
    fn most(&self) -> usize {
        self.limit.unwrap_or(USUAL).clamp(1, MOST)
    }

    /// The place to go on at, of what is in the order of time.
    fn place(&self) -> Result<Option<(u64, u64)>, ApiError> {
        let Some(from) = &self.from else { return Ok(None) };
        let (at, number) = from.split_once('-').unwrap_or_default();
        match (at.parse(), number.parse()) {
            (Ok(at), Ok(number)) => Ok(Some((at, number))),
            _ => Err(ApiError::invalid_param("from: is no `next`")),
        }
    }

    /// The place to go on at, as a number.
    fn number(&self, radix: u32) -> Result<Option<u64>, ApiError> {
        let read = |text: &String| u64::from_str_radix(text, radix);
        self.from.as_ref().map(read).transpose().map_err(|_| ApiError::invalid_param("from: is no `next`"))
    }
}
