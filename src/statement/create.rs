//! Parses `CREATE MODEL`.

use datafusion::common::Result as DFResult;
use datafusion::sql::sqlparser::ast::Ident;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::parse::{PredictStatement, is_name, reference, skip, syntax, word};
use crate::call::FeatureName;
use crate::catalog::fold_name;
use crate::runtime::{CreateModel, CreateOptions};

/// Parses the statement, which starts here.
pub(super) fn create_model(parser: &mut Parser) -> DFResult<PredictStatement> {
    skip(parser, 1);
    let or_replace = parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
    skip(parser, 1);
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    if or_replace && if_not_exists {
        return Err(syntax(ParserError::ParserError("OR REPLACE and IF NOT EXISTS exclude each other".into())));
    }
    let name = fold_name(&reference(parser)?)?;
    let mut features = vec![];
    if word(parser, 0).as_deref() == Some("FEATURES") {
        skip(parser, 1);
        parser.expect_token(&Token::LParen).map_err(syntax)?;
        let named = parser.parse_comma_separated(feature).map_err(syntax)?;
        parser.expect_token(&Token::RParen).map_err(syntax)?;
        features = named.into_iter().flatten().collect();
    }
    if !parser.parse_keyword(Keyword::FROM) {
        let expected = if features.is_empty() { "FEATURES (…) or FROM 'uri'" } else { "FROM 'uri'" };
        return parser.expected(expected, parser.peek_token()).map_err(syntax);
    }
    let token = parser.next_token();
    let uri = match token.token {
        Token::SingleQuotedString(uri) => uri,
        _ => return parser.expected("the model's place as a 'string'", token).map_err(syntax),
    };
    let mut pairs = vec![];
    if word(parser, 0).as_deref() == Some("OPTIONS") {
        skip(parser, 1);
        parser.expect_token(&Token::LParen).map_err(syntax)?;
        pairs = parser.parse_comma_separated(option).map_err(syntax)?;
        parser.expect_token(&Token::RParen).map_err(syntax)?;
    }
    let options = CreateOptions::from_pairs(pairs)?;
    let create = CreateModel { name, or_replace, if_not_exists, features, uri, options };
    Ok(PredictStatement::CreateModel(Box::new(create)))
}

/// `name`, or `input (name, name)`: the columns of one input.
fn feature(parser: &mut Parser) -> Result<Vec<FeatureName>, ParserError> {
    let word = parser.parse_identifier()?;
    if !parser.consume_token(&Token::LParen) {
        return Ok(vec![FeatureName::from(folded(word))]);
    }
    let columns = parser.parse_comma_separated(|parser| parser.parse_identifier())?;
    parser.expect_token(&Token::RParen)?;
    let input = word.value;
    Ok(columns.into_iter().map(|name| FeatureName { name: folded(name), input: Some(input.clone()) }).collect())
}

/// The name in lower case, unless it is quoted.
fn folded(name: Ident) -> String {
    if name.quote_style.is_some() { name.value } else { name.value.to_lowercase() }
}

/// What follows the bracket of `[0.5, -1, …]` or `['cat', 'dog']`, as the text of a list.
fn list(parser: &mut Parser) -> Result<String, ParserError> {
    let mut items = vec![];
    loop {
        let sign = if parser.consume_token(&Token::Minus) { "-" } else { "" };
        let token = parser.next_token();
        items.push(match token.token {
            Token::Number(number, _) => format!("{sign}{number}"),
            Token::SingleQuotedString(text) if sign.is_empty() => serde_json::Value::from(text).to_string(),
            _ => return parser.expected("a number or a string in the list", token),
        });
        let token = parser.next_token();
        match token.token {
            Token::Comma => {}
            Token::RBracket => return Ok(format!("[{}]", items.join(", "))),
            _ => return parser.expected("',' or ']'", token),
        }
    }
}

/// `key value`, with a string, a number, a word or a list as value.
pub(super) fn option(parser: &mut Parser) -> Result<(String, String), ParserError> {
    let first = parser.next_token();
    let mut end = first.span.end;
    let mut key = match first.token {
        Token::SingleQuotedString(text) => text,
        Token::Word(ref word) if is_name(&first.token) => word.value.clone(),
        _ => return parser.expected("the name of an option", first),
    };
    // `constant.sr 16000`, `size.images.3 320`: what stands close to it belongs to the name.
    loop {
        let next = parser.peek_token();
        let is_close = next.span.start == end;
        match next.token {
            Token::Number(number, _) if is_close && number.starts_with('.') => key.push_str(&number),
            Token::Period if is_close => key.push('.'),
            Token::Word(word) if is_close && key.ends_with('.') => key.push_str(&word.value),
            _ => break,
        }
        end = next.span.end;
        parser.advance_token();
    }
    let _ = parser.consume_token(&Token::Eq);
    let sign = if parser.consume_token(&Token::Minus) { "-" } else { "" };
    let token = parser.next_token();
    let value = match token.token {
        Token::Number(number, _) => format!("{sign}{number}"),
        _ if !sign.is_empty() => return parser.expected("a number", token),
        Token::SingleQuotedString(text) => text,
        Token::Word(word) => word.value,
        Token::LBracket => list(parser)?,
        _ => return parser.expected("the value of an option: a string, a number, a word or a list", token),
    };
    Ok((key, value))
}
