//! One place that speaks the distribution protocol.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue, RANGE, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use super::auth::{Authorization, Challenge, Token};
use super::{CONNECT_TIMEOUT, READ_TIMEOUT, RegistryError};
use crate::config::Credential;

/// Error bodies and tokens; a registry that sends more is cut off.
const SMALL_BYTES_MAX: usize = 1 << 20;

/// One place, with what was found out about how to ask it.
pub(crate) struct Endpoint {
    base: Url,
    client: reqwest::Client,
    credential: Option<Credential>,
    /// By repository: a token is good for one.
    authorizations: Mutex<BTreeMap<String, Authorization>>,
}

/// Content on its way.
pub(crate) struct Fetched {
    /// Where in the content it begins: what was asked for, or 0 from a place that does not do parts.
    pub(crate) offset: u64,
    pub(crate) body: BoxStream<'static, Result<Bytes, RegistryError>>,
}

impl Endpoint {
    pub(super) fn new(
        url: &str,
        tls: rustls::ClientConfig,
        credential: Option<Credential>,
    ) -> Result<Self, RegistryError> {
        let wrong = |reason: String| RegistryError::Configuration { place: url.to_owned(), reason };
        let base: Url = url
            .trim_end_matches('/')
            .parse()
            .map_err(|error| wrong(format!("not a URL: {error}")))?;
        if !matches!(base.scheme(), "https" | "http") || base.host_str().is_none() {
            return Err(wrong("not an https URL".to_owned()));
        }
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("podium/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self { base, client, credential, authorizations: Mutex::new(BTreeMap::new()) })
    }

    /// For messages.
    pub(crate) fn place(&self) -> String {
        self.base.to_string().trim_end_matches('/').to_owned()
    }

    /// A manifest or index of at most `most` bytes, whole.
    pub(crate) async fn manifest(
        &self,
        repository: &str,
        selector: &str,
        accept: &str,
        most: usize,
    ) -> Result<Bytes, RegistryError> {
        let mut headers = HeaderMap::new();
        if let Ok(accept) = HeaderValue::from_str(accept) {
            headers.insert(ACCEPT, accept);
        }
        let what = format!("manifest {repository}:{selector}");
        let response =
            self.get(repository, &format!("manifests/{selector}"), headers, &what).await?;
        self.whole(response, most, &what).await
    }

    /// A small blob, whole.
    pub(crate) async fn blob(
        &self,
        repository: &str,
        digest: &str,
        most: usize,
    ) -> Result<Bytes, RegistryError> {
        let what = format!("blob {digest}");
        let response =
            self.get(repository, &format!("blobs/{digest}"), HeaderMap::new(), &what).await?;
        self.whole(response, most, &what).await
    }

    /// A blob from `offset` on, as it comes.
    pub(crate) async fn blob_from(
        &self,
        repository: &str,
        digest: &str,
        offset: u64,
    ) -> Result<Fetched, RegistryError> {
        let mut headers = HeaderMap::new();
        if offset > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
        {
            headers.insert(RANGE, range);
        }
        let what = format!("blob {digest}");
        let response = self.get(repository, &format!("blobs/{digest}"), headers, &what).await?;
        let offset = if response.status() == StatusCode::PARTIAL_CONTENT { offset } else { 0 };
        let place = self.place();
        let body = response
            .bytes_stream()
            .map(move |piece| piece.map_err(|error| RegistryError::of(&place, &what, &error)));
        Ok(Fetched { offset, body: body.boxed() })
    }

    /// Asks, answering at most one question who asks, and returns an answer that has content.
    async fn get(
        &self,
        repository: &str,
        path: &str,
        headers: HeaderMap,
        what: &str,
    ) -> Result<Response, RegistryError> {
        let url = format!("{}/v2/{repository}/{path}", self.place());
        let request = || self.client.get(&url).headers(headers.clone());
        let known = self.known_authorization(repository);
        let response = self.send(with(request(), known.as_ref()), what).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.checked(response, what).await;
        }
        let Some(authorization) = self.authorize(&response, repository, what).await? else {
            return Err(self.refused(response, what).await);
        };
        if let Ok(mut authorizations) = self.authorizations.lock() {
            authorizations.insert(repository.to_owned(), authorization.clone());
        }
        let response = self.send(with(request(), Some(&authorization)), what).await?;
        self.checked(response, what).await
    }

    fn known_authorization(&self, repository: &str) -> Option<Authorization> {
        self.authorizations.lock().ok()?.get(repository).cloned()
    }

    async fn send(&self, request: RequestBuilder, what: &str) -> Result<Response, RegistryError> {
        request.send().await.map_err(|error| RegistryError::of(&self.place(), what, &error))
    }

    /// What to say to a registry that asks who asks; `None` if nothing can be said.
    async fn authorize(
        &self,
        response: &Response,
        repository: &str,
        what: &str,
    ) -> Result<Option<Authorization>, RegistryError> {
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge =
            challenges.filter_map(|header| Challenge::read(header.to_str().ok()?)).next();
        match (challenge, &self.credential) {
            (Some(Challenge::Basic), Some(credential)) => {
                Ok(Some(Authorization::Basic(credential.clone())))
            }
            (Some(Challenge::Basic), None) | (None, _) => Ok(None),
            (Some(Challenge::Bearer { realm, service, scope }), credential) => {
                let mut url: Url =
                    realm.parse().map_err(|_| self.odd(what, format!("token server {realm:?}")))?;
                if url.scheme() != "https" && self.base.scheme() == "https" {
                    return Err(self.odd(what, format!("token server {realm:?} is not https")));
                }
                let scope = scope.unwrap_or_else(|| format!("repository:{repository}:pull"));
                url.query_pairs_mut().append_pair("scope", &scope);
                if let Some(service) = service {
                    url.query_pairs_mut().append_pair("service", &service);
                }
                let basic = credential.clone().map(Authorization::Basic);
                let response =
                    self.send(with(self.client.get(url), basic.as_ref()), "token").await?;
                let response = self.checked(response, what).await?;
                let body = self.whole(response, SMALL_BYTES_MAX, "token").await?;
                let token = serde_json::from_slice::<Token>(&body).ok().and_then(Token::value);
                token
                    .map(|token| Some(Authorization::Bearer(token)))
                    .ok_or_else(|| self.odd(what, "there is no token in it".to_owned()))
            }
        }
    }

    fn odd(&self, what: &str, reason: String) -> RegistryError {
        RegistryError::Answer { place: self.place(), what: what.to_owned(), reason }
    }

    async fn checked(&self, response: Response, what: &str) -> Result<Response, RegistryError> {
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refused(response, what).await)
    }

    /// What an answer without content means.
    async fn refused(&self, response: Response, what: &str) -> RegistryError {
        let (place, what) = (self.place(), what.to_owned());
        let status = response.status();
        let said =
            self.whole(response, SMALL_BYTES_MAX, &what).await.ok().and_then(|body| said(&body));
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound {
                place,
                what,
                code: said.unwrap_or_else(|| "not found".to_owned()),
            },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Unauthorized {
                place,
                what,
                reason: format!(
                    "{}: {}",
                    status.as_u16(),
                    said.unwrap_or_else(|| "authentication required".to_owned())
                ),
            },
            _ => {
                let said = said.map(|said| format!(": {said}")).unwrap_or_default();
                RegistryError::Answer { place, what, reason: format!("{status}{said}") }
            }
        }
    }

    async fn whole(
        &self,
        response: Response,
        most: usize,
        what: &str,
    ) -> Result<Bytes, RegistryError> {
        let mut body = response.bytes_stream();
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| RegistryError::of(&self.place(), what, &error))?;
            if bytes.len() + piece.len() > most {
                return Err(self.odd(what, format!("it is longer than {most} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.into())
    }
}

fn with(request: RequestBuilder, authorization: Option<&Authorization>) -> RequestBuilder {
    match authorization {
        Some(Authorization::Basic(credential)) => {
            request.basic_auth(&credential.username, Some(&credential.password))
        }
        Some(Authorization::Bearer(token)) => request.bearer_auth(token),
        None => request,
    }
}

/// The registry's own words: `manifest unknown`, `unauthorized: authentication required`.
fn said(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        code: String,
        #[serde(default)]
        message: String,
    }
    let first = serde_json::from_slice::<Errors>(body).ok()?.errors.into_iter().next()?;
    let code = first.code.to_ascii_lowercase().replace('_', " ");
    let message: String =
        first.message.chars().filter(|character| !character.is_control()).take(200).collect();
    Some(if message.is_empty() || message.eq_ignore_ascii_case(&code) {
        code
    } else {
        format!("{code}: {message}")
    })
}
