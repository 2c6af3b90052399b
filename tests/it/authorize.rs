//! Calls that need more than a fixed key: what completes them, when it is had anew, and what is told when it cannot be.

use batchd::clock::Clock;
use batchd::config::Env;
use batchd::http::authorize::{Authorized, AwsSource, CredentialRoutes, GoogleSource, Issuer};
use batchd::http::call::{Answer, BodyLimit, Call, Grant};
use batchd::http::failure::{Failure, Verdict};
use batchd::http::transport::Transport;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rcgen::{KeyPair, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

type Answering = Box<dyn Fn(&Call, usize) -> Result<(u16, Value), Failure> + Send + Sync>;

/// Answers as the test says, and remembers what it was sent.
struct Scripted {
    sent: Mutex<Vec<Call>>,
    answer: Answering,
}

impl Scripted {
    fn new(
        answer: impl Fn(&Call, usize) -> Result<(u16, Value), Failure> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { sent: Mutex::default(), answer: Box::new(answer) })
    }

    fn sent(&self) -> Vec<Call> {
        self.sent.lock().unwrap().clone()
    }
}

impl Transport for Scripted {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        let mut sent = self.sent.lock().unwrap();
        let answer = (self.answer)(&call, sent.len());
        sent.push(call);
        let answer = answer.map(|(status, body)| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.to_string().into(),
            cut: false,
        });
        Box::pin(std::future::ready(answer))
    }
}

/// A service that takes what comes.
fn service() -> Arc<Scripted> {
    Scripted::new(|_, _| Ok((200, json!({}))))
}

/// Nobody is to ask there.
fn nobody() -> Arc<Scripted> {
    Scripted::new(|_, _| panic!("nothing is to be asked there"))
}

/// Gives numbered tokens that last an hour.
fn token_service() -> Arc<Scripted> {
    Scripted::new(|_, before| {
        Ok((
            200,
            json!({"access_token": format!("token-{before}"), "expires_in": 3600, "token_type": "Bearer"}),
        ))
    })
}

fn call() -> Call {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = "https://service.example.com/v1/x".parse().unwrap();
    Call { request, timeout: Duration::from_secs(1), body_limit: BodyLimit::Whole(1000) }
}

fn google(
    file: Option<PathBuf>,
    inner: &Arc<Scripted>,
    outward: &Arc<Scripted>,
    metadata: &Arc<Scripted>,
) -> Authorized {
    let routes = CredentialRoutes { outward: outward.clone(), metadata: metadata.clone() };
    let issuer = Issuer::Google(GoogleSource { file });
    Authorized::new(inner.clone(), issuer, routes, Clock::simulated(NOW), &Env::default())
}

fn file(directory: &TempDir, content: &Value) -> PathBuf {
    let path = directory.path().join("credentials.json");
    std::fs::write(&path, content.to_string()).unwrap();
    path
}

fn login(directory: &TempDir) -> PathBuf {
    file(
        directory,
        &json!({
            "type": "authorized_user", "client_id": "client", "client_secret": "very-secret",
            "refresh_token": "refresh-secret", "quota_project_id": "billed", "account": "", "universe_domain": "googleapis.com",
        }),
    )
}

fn bearer(call: &Call) -> &str {
    call.request.headers()["authorization"].to_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_service_account_signs_for_a_token_and_uses_it_until_it_is_about_to_end() {
    let directory = TempDir::new().unwrap();
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let path = file(
        &directory,
        &json!({
            "type": "service_account", "client_email": "batches@example.iam.gserviceaccount.com",
            "private_key": key.serialize_pem(), "private_key_id": "key-1", "token_uri": "https://oauth2.example.com/token",
        }),
    );
    let (inner, tokens) = (service(), token_service());
    let authorized = google(Some(path), &inner, &tokens, &nobody());
    for _ in 0..3 {
        authorized.send(call().granted(Grant::Google)).await.unwrap();
        tokio::time::advance(Duration::from_mins(30)).await;
    }
    let borne: Vec<_> = inner.sent().iter().map(|call| bearer(call).to_owned()).collect();
    assert_eq!(borne, ["Bearer token-0", "Bearer token-0", "Bearer token-1"]);
    assert!(inner.sent()[0].request.headers()["authorization"].is_sensitive());

    let asked = &tokens.sent()[0];
    assert_eq!(asked.request.uri(), "https://oauth2.example.com/token");
    let form: Vec<(String, String)> =
        url::form_urlencoded::parse(asked.request.body()).into_owned().collect();
    assert_eq!(form[0], ("grant_type".to_owned(), "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned()));
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_audience(&["https://oauth2.example.com/token"]);
    // The test's clock is not the library's.
    rules.validate_exp = false;
    let public = DecodingKey::from_rsa_der(key.der_bytes());
    let told = jsonwebtoken::decode::<Value>(&form[1].1, &public, &rules).unwrap();
    assert_eq!(told.header.kid.as_deref(), Some("key-1"));
    assert_eq!(
        told.claims,
        json!({
            "iss": "batches@example.iam.gserviceaccount.com", "scope": "https://www.googleapis.com/auth/cloud-platform",
            "aud": "https://oauth2.example.com/token", "iat": 1_795_000_000, "exp": 1_795_003_600,
        })
    );
}

#[tokio::test(start_paused = true)]
async fn a_login_refreshes_its_token_and_names_its_project() {
    let directory = TempDir::new().unwrap();
    let (inner, tokens) = (service(), token_service());
    let authorized = google(Some(login(&directory)), &inner, &tokens, &nobody());
    authorized.send(call().granted(Grant::Google)).await.unwrap();
    let sent = inner.sent().remove(0);
    assert_eq!(bearer(&sent), "Bearer token-0");
    assert_eq!(sent.request.headers()["x-goog-user-project"], "billed");
    let asked = tokens.sent().remove(0);
    assert_eq!(asked.request.uri(), "https://oauth2.googleapis.com/token");
    assert_eq!(
        asked.request.body(),
        "grant_type=refresh_token&client_id=client&client_secret=very-secret&refresh_token=refresh-secret"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_file_the_machine_s_own_account_is_asked_for_and_not_through_the_proxy() {
    let (inner, metadata) = (service(), token_service());
    let authorized = google(None, &inner, &nobody(), &metadata);
    authorized.send(call().granted(Grant::Google)).await.unwrap();
    assert_eq!(bearer(&inner.sent()[0]), "Bearer token-0");
    let asked = metadata.sent().remove(0);
    assert_eq!(
        asked.request.uri(),
        "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
    );
    assert_eq!(asked.request.headers()["metadata-flavor"], "Google");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_before_its_time_is_had_anew_once() {
    let directory = TempDir::new().unwrap();
    let inner =
        Scripted::new(|call, _| Ok((if bearer(call) == "Bearer token-0" { 401 } else { 200 }, json!({}))));
    let tokens = token_service();
    let authorized = google(Some(login(&directory)), &inner, &tokens, &nobody());
    let status = async || authorized.send(call().granted(Grant::Google)).await.unwrap().status;
    assert_eq!(status().await, 401, "a new token that is refused is not to blame");
    assert_eq!(tokens.sent().len(), 1);
    tokio::time::advance(Duration::from_mins(2)).await;
    assert_eq!(status().await, 200);
    assert_eq!((tokens.sent().len(), inner.sent().len()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn what_needs_nothing_passes_as_it_is() {
    let inner = service();
    let authorized = google(None, &inner, &nobody(), &nobody());
    authorized.send(call()).await.unwrap();
    assert!(inner.sent()[0].request.headers().is_empty());
    let aws = Grant::Aws { service: "bedrock", region: "us-east-1".to_owned() };
    assert!(matches!(authorized.send(call().granted(aws)).await, Err(Failure::BadRequest(_))));
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_credentials_is_told_without_showing_them() {
    let directory = TempDir::new().unwrap();
    let tell = async |content: Option<&Value>, answer: (u16, Value)| {
        let path =
            content.map_or_else(|| directory.path().join("none.json"), |content| file(&directory, content));
        let outward = Scripted::new(move |_, _| Ok(answer.clone()));
        let authorized = google(Some(path), &nobody(), &outward, &nobody());
        let failure = authorized.send(call().granted(Grant::Google)).await.unwrap_err();
        let told = failure.to_string().replace(directory.path().to_str().unwrap(), "DIR");
        assert!(!told.contains("secret"), "{told}");
        (told, failure.verdict())
    };
    let login = json!({"type": "authorized_user", "client_id": "c", "client_secret": "secret-1", "refresh_token": "secret-token-2"});
    let broken_key = json!({"type": "service_account", "client_email": "e", "private_key": "secret-3"});
    let good = || (200, json!({"access_token": "t"}));
    for (content, answer, told, verdict) in [
        (
            None,
            good(),
            "the Google credentials in DIR/none.json cannot be read: entity not found",
            Verdict::Refused,
        ),
        (
            Some(&json!({"installed": {"client_secret": "secret-4"}})),
            good(),
            "DIR/credentials.json holds no Google credentials: it is not such a JSON file",
            Verdict::Refused,
        ),
        (
            Some(&json!({"type": "external_account", "audience": "secret-5"})),
            good(),
            "the credentials in DIR/credentials.json are of a type that batchd does not know; use a service account's \
             key or `gcloud auth application-default login`",
            Verdict::Refused,
        ),
        (
            Some(&broken_key),
            good(),
            "the private key in DIR/credentials.json is none; download a new one",
            Verdict::Refused,
        ),
        (
            Some(&login),
            (
                400,
                json!({"error": "invalid_grant", "error_description": "Token has been expired or revoked."}),
            ),
            "Google refuses the credentials in DIR/credentials.json: invalid_grant: Token has been expired or revoked.",
            Verdict::Refused,
        ),
        (
            Some(&login),
            (400, json!({"error": "invalid_grant", "error_description": "no such token: s%65cret-token-2"})),
            "Google refuses the credentials in DIR/credentials.json: invalid_grant: no such token: [redacted]",
            Verdict::Refused,
        ),
        (
            Some(&login),
            (503, json!({})),
            "Google refuses the credentials in DIR/credentials.json: 503 Service Unavailable",
            Verdict::Again,
        ),
        (
            Some(&login),
            (200, json!({"token": "secret-6"})),
            "Google refuses the credentials in DIR/credentials.json: the answer holds no access token",
            Verdict::Again,
        ),
    ] {
        assert_eq!(tell(content, answer).await, (told.to_owned(), verdict));
    }
}

#[tokio::test(start_paused = true)]
async fn a_fixed_key_signs_for_each_service_and_region() {
    let inner = service();
    let routes = CredentialRoutes { outward: nobody(), metadata: nobody() };
    let source = AwsSource {
        region: "eu-central-1".to_owned(),
        profile: None,
        fixed: Some(("AKIDEXAMPLE".to_owned(), SecretString::from("aws-secret"))),
    };
    let authorized =
        Authorized::new(inner.clone(), Issuer::Aws(source), routes, Clock::simulated(NOW), &Env::default());
    for (service, region) in [("bedrock", "eu-central-1"), ("s3", "us-east-1")] {
        authorized.send(call().granted(Grant::Aws { service, region: region.to_owned() })).await.unwrap();
        let sent = inner.sent().pop().unwrap();
        let scope = format!("Credential=AKIDEXAMPLE/20261118/{region}/{service}/aws4_request, ");
        assert!(bearer(&sent).starts_with(&format!("AWS4-HMAC-SHA256 {scope}")), "{}", bearer(&sent));
        assert!(!bearer(&sent).contains("aws-secret"));
    }
}
