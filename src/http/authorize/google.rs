//! Google: OAuth access tokens from a service account's key, a user's login or the machine's own account
//! (Application Default Credentials, <https://google.aip.dev/auth/4110>).
//!
//! The three ways are one request each. Google's own library for them makes its HTTP clients itself, past the proxy,
//! the certificate authorities and the guard that the configuration asks for; here they take our ways out.

use super::cache::{Cache, Issued};
use super::routes::CredentialRoutes;
use crate::clock::Clock;
use crate::config::Env;
use crate::domain::time::later;
use crate::http::call::{Answer, BodyLimit, Call};
use crate::http::failure::Failure;
use crate::http::limits;
use crate::http::scrub::Scrubber;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::form_urlencoded;

/// Where an account's Google credentials come from.
#[derive(Clone, Debug)]
pub struct GoogleSource {
    /// The file with the credentials; `None`: `GOOGLE_APPLICATION_CREDENTIALS`, else what `gcloud auth
    /// application-default login` left, else the machine's own account.
    pub file: Option<PathBuf>,
}

pub(super) struct Tokens {
    place: Place,
    routes: CredentialRoutes,
    clock: Clock,
    cache: Cache<Token>,
}

/// Where the credentials are.
#[derive(Debug)]
struct Place {
    /// The file that was named; it must be there.
    named: Option<PathBuf>,
    /// Where gcloud keeps its login; it may be there.
    login: Option<PathBuf>,
    metadata_host: String,
}

#[derive(Clone, Debug)]
struct Token {
    access: SecretString,
    /// The project whose quota is used, where the login names one.
    quota_project: Option<String>,
}

/// A file of credentials.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Credentials {
    ServiceAccount {
        client_email: String,
        private_key: SecretString,
        private_key_id: Option<String>,
        token_uri: Option<String>,
    },
    AuthorizedUser {
        client_id: String,
        client_secret: SecretString,
        refresh_token: SecretString,
        token_uri: Option<String>,
        quota_project_id: Option<String>,
    },
    /// Of a kind that is not known here.
    #[serde(other)]
    Other,
}

/// What a service account says of itself, signed (RFC 7523).
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'static str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

/// What a token is given in.
#[derive(Deserialize)]
struct Given {
    access_token: SecretString,
    expires_in: Option<f64>,
}

/// Why it is not given (RFC 6749 §5.2).
#[derive(Deserialize, Default)]
struct Refused {
    error: Option<String>,
    error_description: Option<String>,
}

impl Tokens {
    pub(super) fn new(source: GoogleSource, routes: CredentialRoutes, clock: Clock, env: &Env) -> Self {
        let named = source.file.or_else(|| env.get("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from));
        let gcloud = env
            .get("CLOUDSDK_CONFIG")
            .map(PathBuf::from)
            .or_else(|| Some(env.directory("HOME")?.join(".config/gcloud")));
        let place = Place {
            named,
            login: gcloud.map(|directory| directory.join("application_default_credentials.json")),
            metadata_host: env.get("GCE_METADATA_HOST").unwrap_or(METADATA_HOST).to_owned(),
        };
        Self { place, routes, cache: Cache::new(clock.clone()), clock }
    }

    /// `call` with a token.
    pub(super) async fn bear(&self, mut call: Call) -> Result<Call, Failure> {
        let token = self.cache.get(|| self.obtain()).await?;
        let bad = |_| refused("the token holds characters that no header may carry".to_owned());
        let headers = call.request.headers_mut();
        let bearer = format!("Bearer {}", token.access.expose_secret());
        let mut bearer = HeaderValue::try_from(bearer).map_err(bad)?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        if let Some(project) = token.quota_project
            && !headers.contains_key(QUOTA_PROJECT)
        {
            headers.insert(QUOTA_PROJECT, HeaderValue::try_from(project).map_err(bad)?);
        }
        Ok(call)
    }

    pub(super) async fn doubt(&self) -> bool {
        self.cache.doubt().await
    }

    /// Reads the file, if there is one, anew each time: it may have changed.
    async fn obtain(&self) -> Result<Issued<Token>, Failure> {
        let (file, must_be) = match (&self.place.named, &self.place.login) {
            (Some(named), _) => (named, true),
            (None, Some(login)) => (login, false),
            (None, None) => return self.ask_metadata().await,
        };
        match tokio::fs::read(file).await {
            Ok(bytes) => self.use_file(file, &bytes).await,
            Err(error) if !must_be && error.kind() == std::io::ErrorKind::NotFound => {
                self.ask_metadata().await
            }
            Err(error) => Err(refused(format!(
                "the Google credentials in {} cannot be read: {}",
                file.display(),
                error.kind()
            ))),
        }
    }

    async fn use_file(&self, file: &Path, bytes: &[u8]) -> Result<Issued<Token>, Failure> {
        let shown = file.display();
        // No word of serde's: it might quote what it stumbled over.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let credentials = serde_json::from_slice(bytes).map_err(|_| {
            refused(format!("{shown} holds no Google credentials: it is not such a JSON file"))
        })?;
        let (form, address, quota_project, sent) = match credentials {
            Credentials::ServiceAccount { client_email, private_key, private_key_id, token_uri } => {
                let address = token_uri.unwrap_or_else(|| TOKEN_ADDRESS.to_owned());
                let now = self.clock.now().as_second();
                let claims =
                    Claims { iss: &client_email, scope: SCOPE, aud: &address, iat: now, exp: now + 3600 };
                let header = Header { kid: private_key_id, ..Header::new(Algorithm::RS256) };
                let assertion = EncodingKey::from_rsa_pem(private_key.expose_secret().as_bytes())
                    .and_then(|key| jsonwebtoken::encode(&header, &claims, &key))
                    .map_err(|_| {
                        refused(format!("the private key in {shown} is none; download a new one"))
                    })?;
                let form = form_urlencoded::Serializer::new(String::new())
                    .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
                    .append_pair("assertion", &assertion)
                    .finish();
                (form, address, None, vec![SecretString::from(assertion), private_key])
            }
            Credentials::AuthorizedUser {
                client_id,
                client_secret,
                refresh_token,
                token_uri,
                quota_project_id,
            } => {
                let form = form_urlencoded::Serializer::new(String::new())
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", &client_id)
                    .append_pair("client_secret", client_secret.expose_secret())
                    .append_pair("refresh_token", refresh_token.expose_secret())
                    .finish();
                let address = token_uri.unwrap_or_else(|| TOKEN_ADDRESS.to_owned());
                (form, address, quota_project_id, vec![client_secret, refresh_token])
            }
            Credentials::Other => {
                return Err(refused(format!(
                    "the credentials in {shown} are of a type that batchd does not know; use a service account's key \
                     or `gcloud auth application-default login`"
                )));
            }
        };
        let mut request = Request::new(Bytes::from(form));
        *request.method_mut() = Method::POST;
        *request.uri_mut() =
            address.parse().map_err(|_| refused(format!("`token_uri` in {shown} is no address")))?;
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form_type);
        let call = Call { request, timeout: TIMEOUT, body_limit: BodyLimit::Whole(limits::RECEIVER_BODY) };
        let answer = self.routes.outward.send(call).await.map_err(|failure| unreached(&failure))?;
        let scrubber = Scrubber::new(&sent);
        self.token(&answer, quota_project, &scrubber, || format!("Google refuses the credentials in {shown}"))
    }

    async fn ask_metadata(&self) -> Result<Issued<Token>, Failure> {
        let address = format!("http://{}{METADATA_PATH}", self.place.metadata_host);
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() =
            address.parse().map_err(|_| refused("GCE_METADATA_HOST is no host".to_owned()))?;
        request.headers_mut().insert("metadata-flavor", HeaderValue::from_static("Google"));
        let call = Call { request, timeout: TIMEOUT, body_limit: BodyLimit::Whole(limits::RECEIVER_BODY) };
        let answer = self.routes.metadata.send(call).await.map_err(|failure| {
            refused(format!(
                "no Google credentials are found: set GOOGLE_APPLICATION_CREDENTIALS or `credentials_file` ({METADATA_HOST}: {failure})"
            ))
        })?;
        let nothing_sent = Scrubber::default();
        self.token(&answer, None, &nothing_sent, || format!("{METADATA_HOST} has no token for this machine"))
    }

    /// The token that `answer` gives; what it says instead stands behind `what`, without what `scrubber` knows.
    fn token(
        &self,
        answer: &Answer,
        quota_project: Option<String>,
        scrubber: &Scrubber,
        what: impl Fn() -> String,
    ) -> Result<Issued<Token>, Failure> {
        if !answer.status.is_success() {
            let told: Refused = serde_json::from_slice(&answer.body).unwrap_or_default();
            let words =
                [told.error, told.error_description].into_iter().flatten().collect::<Vec<_>>().join(": ");
            let words = if words.is_empty() { answer.status.to_string() } else { words };
            let words: String =
                scrubber.scrub(&words).chars().filter(|c| !c.is_control()).take(200).collect();
            let for_now = answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS;
            return Err(Failure::Credentials { message: format!("{}: {words}", what()), refused: !for_now });
        }
        let given: Given = serde_json::from_slice(&answer.body).map_err(|_| Failure::Credentials {
            message: format!("{}: the answer holds no access token", what()),
            refused: false,
        })?;
        let lives = given.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(Issued {
            credential: Token { access: given.access_token, quota_project },
            until: lives.map(|lives| later(self.clock.now(), lives)),
        })
    }
}

fn refused(message: String) -> Failure {
    Failure::Credentials { message, refused: true }
}

fn unreached(failure: &Failure) -> Failure {
    Failure::Credentials {
        message: format!("Google's token service cannot be asked: {failure}"),
        refused: false,
    }
}

/// Where tokens are had, unless the file says otherwise.
const TOKEN_ADDRESS: &str = "https://oauth2.googleapis.com/token";

/// What the token may be used for; narrower ones for batches do not exist.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

const QUOTA_PROJECT: &str = "x-goog-user-project";

/// Resolves to a link-local address, on Google's machines only.
const METADATA_HOST: &str = "metadata.google.internal";

const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

/// For one request to a token service.
const TIMEOUT: Duration = Duration::from_secs(10);
