//! Who somebody is.

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{SelfSubjectReviewStatus, TokenReviewSpec, TokenReviewStatus, UserInfo};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::status::ApiError;
use serde_json::Value;

use super::{AUTHENTICATION, Question, status};
use crate::authn::User;

fn info(user: &User) -> UserInfo {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    UserInfo {
        username: some(&user.name),
        uid: some(&user.uid),
        groups: Some(user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
    }
}

pub(super) fn who_am_i(question: &Question<'_>) -> Result<Value, ApiError> {
    status(&SelfSubjectReviewStatus { user_info: Some(info(question.user)) })
}

pub(super) fn whose_token(question: &Question<'_>) -> Result<Value, ApiError> {
    let spec: TokenReviewSpec = question.spec()?;
    let token = spec.token;
    if token.is_empty() {
        let error = FieldError::required(&Path::new("spec").child("token"), "");
        return Err(ApiError::invalid(&question.group_kind(AUTHENTICATION), "", &ErrorList(vec![error])));
    }
    let audiences = spec.audiences.unwrap_or_default();
    let answer = question.reviewer.tokens.authenticate(&token, &audiences, Timestamp::now());
    status(&match answer {
        Ok((user, audiences)) => TokenReviewStatus {
            authenticated: Some(true),
            user: Some(info(&user)),
            audiences: Some(audiences),
            error: None,
        },
        Err(error) => TokenReviewStatus { error: Some(error.to_string()), ..TokenReviewStatus::default() },
    })
}
