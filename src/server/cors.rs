//! Which pages of other origins may call the server.

use super::ServerConfig;
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use std::str::FromStr;
use tower_http::cors::{Any, CorsLayer};

/// A CORS flag with a value that cannot be, or `*` together with credentials.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {value:?}: {allowed}")]
pub struct CorsError {
    flag: &'static str,
    value: String,
    allowed: &'static str,
}

/// What the CORS options say, checked.
#[derive(Debug, Clone)]
pub struct CorsPolicy(pub(super) CorsLayer);

impl CorsPolicy {
    /// Reads the options.
    ///
    /// # Errors
    /// [`CorsError`] when they contradict each other, or a value is no origin, method or header.
    pub fn new(config: &ServerConfig) -> Result<Self, CorsError> {
        let wildcard = |list: &[String]| list.iter().any(|entry| entry == "*");
        let mut layer = CorsLayer::new();
        let lists = [&config.allowed_origins, &config.allowed_methods, &config.allowed_headers];
        if config.allow_credentials {
            if lists.iter().any(|list| wildcard(list)) {
                return Err(CorsError {
                    flag: "--allow-credentials",
                    value: "*".into(),
                    allowed: "name the allowed origins, methods and headers: browsers take no `*` with credentials",
                });
            }
            layer = layer.allow_credentials(true);
        }
        layer = match wildcard(&config.allowed_origins) {
            true => layer.allow_origin(Any),
            false => {
                let allowed =
                    "must be an origin as browsers send it, such as https://example.com or http://localhost:3000";
                layer.allow_origin(read_all("--allowed-origins", &config.allowed_origins, allowed, origin)?)
            }
        };
        let header = "cannot stand in a header";
        layer = match wildcard(&config.allowed_methods) {
            true => layer.allow_methods(Any),
            false => {
                layer.allow_methods(read_all("--allowed-methods", &config.allowed_methods, header, parsed::<Method>)?)
            }
        };
        Ok(Self(match wildcard(&config.allowed_headers) {
            true => layer.allow_headers(Any),
            false => layer.allow_headers(read_all(
                "--allowed-headers",
                &config.allowed_headers,
                header,
                parsed::<HeaderName>,
            )?),
        }))
    }
}

fn read_all<T>(
    flag: &'static str,
    list: &[String],
    allowed: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, CorsError> {
    let one = |value: &String| read(value).ok_or_else(|| CorsError { flag, value: value.clone(), allowed });
    list.iter().map(one).collect()
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// A scheme and an authority, with no slash behind it; or `null`, which pages from files send.
fn origin(text: &str) -> Option<HeaderValue> {
    let uri: Uri = text.parse().ok()?;
    let is_whole = uri.scheme_str().zip(uri.authority()).is_some_and(|(scheme, at)| format!("{scheme}://{at}") == text);
    if is_whole || text == "null" { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn origins_are_what_browsers_send() {
        for text in
            ["https://example.com", "http://localhost:3000", "chrome-extension://abcdef", "http://[::1]:80", "null"]
        {
            assert!(origin(text).is_some(), "{text}");
        }
        for text in ["not a url", "example.com", "https://example.com/", "https://example.com/page", "", "https://"] {
            assert!(origin(text).is_none(), "{text}");
        }
    }
}
