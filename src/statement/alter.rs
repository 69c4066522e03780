//! `ALTER MODEL`, `ROLLBACK MODEL`, `COMMENT ON MODEL`, `DROP MODEL`

use datafusion::common::{Result as DFResult, plan_err};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use super::parse::{PredictStatement, reference, skip, syntax, word};
use crate::catalog::{Change, ModelReference, Traffic, VersionReference, fold_alias, version_number};

/// `ALTER MODEL name SET ALIAS …`
pub(super) fn alter_model(parser: &mut Parser) -> DFResult<PredictStatement> {
    skip(parser, 2);
    let named = reference(parser)?;
    let target: ModelReference = named.parse()?;
    let words = [word(parser, 0).unwrap_or_default(), word(parser, 1).unwrap_or_default()];
    let change = match [words[0].as_str(), words[1].as_str()] {
        ["SET", "TAG" | "TAGS"] => {
            skip(parser, 2);
            let (model, version) = split(target);
            Change::SetTags { model, version, tags: parser.parse_comma_separated(tag).map_err(syntax)? }
        }
        ["UNSET", "TAG" | "TAGS"] => {
            skip(parser, 2);
            let (model, version) = split(target);
            let names = parser.parse_comma_separated(name).map_err(syntax)?;
            Change::SetTags { model, version, tags: names.into_iter().map(|name| (name, None)).collect() }
        }
        ["SET", "ALIAS"] => {
            skip(parser, 2);
            let model = whole(target, &named)?;
            let pairs = parser.parse_comma_separated(alias).map_err(syntax)?;
            let aliases = pairs.into_iter().map(|(alias, target)| Ok((fold_alias(&alias)?, version(&target)?)));
            Change::SetAliases { model, aliases: aliases.collect::<DFResult<_>>()? }
        }
        ["DROP", "ALIAS"] => {
            skip(parser, 2);
            let model = whole(target, &named)?;
            Change::DropAlias { model, alias: fold_alias(&name(parser).map_err(syntax)?)? }
        }
        ["SET", "TRAFFIC"] => {
            skip(parser, 2);
            Change::SetTraffic { model: whole(target, &named)?, traffic: Some(traffic(parser).map_err(syntax)?) }
        }
        ["DROP" | "UNSET", "TRAFFIC"] => {
            skip(parser, 2);
            Change::SetTraffic { model: whole(target, &named)?, traffic: None }
        }
        _ => {
            let expected = "SET ALIAS, SET TAG, SET TRAFFIC, DROP ALIAS, UNSET TAG or DROP TRAFFIC";
            return parser.expected(expected, parser.peek_token()).map_err(syntax);
        }
    };
    Ok(PredictStatement::AlterModel(change))
}

/// `ROLLBACK MODEL name [TO version]`
pub(super) fn rollback_model(parser: &mut Parser) -> DFResult<PredictStatement> {
    skip(parser, 2);
    let named = reference(parser)?;
    let model = whole(named.parse()?, &named)?;
    let to =
        if parser.parse_keyword(Keyword::TO) { Some(version(&self::target(parser).map_err(syntax)?)?) } else { None };
    Ok(PredictStatement::AlterModel(Change::Rollback { model, to }))
}

/// `COMMENT ON MODEL name IS 'text'`
pub(super) fn comment_on_model(parser: &mut Parser) -> DFResult<PredictStatement> {
    skip(parser, 3);
    let (model, version) = split(reference(parser)?.parse()?);
    parser.expect_keyword(Keyword::IS).map_err(syntax)?;
    let token = parser.next_token();
    let comment = match &token.token {
        Token::SingleQuotedString(text) => Some(text.clone()),
        Token::Word(Word { keyword: Keyword::NULL, .. }) => None,
        _ => return parser.expected("a 'string' or NULL", token).map_err(syntax),
    };
    Ok(PredictStatement::AlterModel(Change::SetComment { model, version, comment }))
}

/// `DROP MODEL [IF EXISTS] name[/version]`
pub(super) fn drop_model(parser: &mut Parser) -> DFResult<PredictStatement> {
    skip(parser, 2);
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let named = reference(parser)?;
    let ModelReference { name, version } = named.parse()?;
    let version = match version {
        VersionReference::Current => None,
        VersionReference::Number(number) => Some(number),
        VersionReference::Alias(_) => {
            return plan_err!("'{named}' can't be dropped: expected a name or a version, as in {name}/2");
        }
    };
    Ok(PredictStatement::DropModel { name, version, if_exists })
}

/// The model's name, and the version if one is named.
fn split(ModelReference { name, version }: ModelReference) -> (String, Option<VersionReference>) {
    (name, Some(version).filter(|version| *version != VersionReference::Current))
}

/// The model's name alone.
fn whole(reference: ModelReference, named: &str) -> DFResult<String> {
    match reference.version {
        VersionReference::Current => Ok(reference.name),
        _ => plan_err!("expected a model's name, found '{named}', which names one version"),
    }
}

/// `3`, `v3` or an alias.
fn version(text: &str) -> DFResult<VersionReference> {
    Ok(match version_number(text) {
        Some(number) => VersionReference::Number(number),
        None => VersionReference::Alias(fold_alias(text)?),
    })
}

/// A word or a string.
fn name(parser: &mut Parser) -> Result<String, ParserError> {
    let token = parser.next_token();
    match token.token {
        Token::SingleQuotedString(text) => Ok(text),
        Token::Word(Word { value, quote_style: None, .. }) => Ok(value.to_lowercase()),
        Token::Word(Word { value, .. }) => Ok(value),
        _ => parser.expected("a name", token),
    }
}

/// A number, a word or a string.
fn target(parser: &mut Parser) -> Result<String, ParserError> {
    match parser.peek_token().token {
        Token::Number(number, _) => {
            parser.next_token();
            Ok(number)
        }
        Token::Word(_) | Token::SingleQuotedString(_) => name(parser),
        _ => parser.expected("a version: its number or an alias", parser.peek_token()),
    }
}

/// `champion TO 3`
fn alias(parser: &mut Parser) -> Result<(String, String), ParserError> {
    let alias = name(parser)?;
    if !parser.parse_keyword(Keyword::TO) {
        return parser.expected("TO and a version", parser.peek_token());
    }
    Ok((alias, target(parser)?))
}

/// `stage = 'qa'`
fn tag(parser: &mut Parser) -> Result<(String, Option<String>), ParserError> {
    let tag = name(parser)?;
    let _ = parser.consume_token(&Token::Eq);
    let token = parser.next_token();
    match token.token {
        Token::SingleQuotedString(value) | Token::Number(value, _) => Ok((tag, Some(value))),
        _ => parser.expected("the value of a tag: a string or a number", token),
    }
}

/// `(v3 90, v4 10) [BY feature]`
fn traffic(parser: &mut Parser) -> Result<Traffic, ParserError> {
    parser.expect_token(&Token::LParen)?;
    let shares = parser.parse_comma_separated(|parser| {
        let token = parser.next_token();
        let version = match &token.token {
            Token::Number(text, _) | Token::Word(Word { value: text, .. }) => version_number(text),
            _ => None,
        };
        let Some(version) = version else { return parser.expected("a version, as in v3", token) };
        let token = parser.next_token();
        match &token.token {
            Token::Number(number, _) if number.parse::<u32>().is_ok() => {
                Ok((version, number.parse().unwrap_or_default()))
            }
            _ => parser.expected("a share: a whole number, such as 90", token),
        }
    })?;
    parser.expect_token(&Token::RParen)?;
    let by = if parser.parse_keyword(Keyword::BY) { Some(name(parser)?) } else { None };
    Ok(Traffic { shares, by })
}
