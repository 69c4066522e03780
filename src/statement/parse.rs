//! A parser of our statements, around DataFusion's for all others.

use std::fmt;

use datafusion::common::Result as DFResult;
use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParser, DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use crate::catalog::fold_name;
use crate::model::ModelOptions;

/// One statement.
#[derive(Debug, Clone)]
pub enum PredictStatement {
    /// `CREATE MODEL`
    CreateModel(CreateModel),
    /// `DROP MODEL [IF EXISTS] name`
    DropModel {
        /// The folded name.
        name: String,
        /// Whether a name that is not there is no error.
        if_exists: bool,
    },
    /// `SHOW MODELS`
    ShowModels,
    /// `DESCRIBE MODEL name`
    DescribeModel {
        /// The name as `predict` takes it.
        name: String,
    },
    /// Any other, for DataFusion.
    DataFusion(Box<Statement>),
}

/// `CREATE [OR REPLACE] MODEL [IF NOT EXISTS] name [FEATURES (a, b, …)] FROM 'uri' [OPTIONS (key value, …)]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateModel {
    /// The folded name.
    pub name: String,
    /// Whether a name that is there gets a new version.
    pub or_replace: bool,
    /// Whether a name that is there is no error.
    pub if_not_exists: bool,
    /// The features' names, in order; empty if not given.
    pub features: Vec<String>,
    /// Where the model is.
    pub uri: String,
    /// How it is called.
    pub options: ModelOptions,
}

impl fmt::Display for PredictStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateModel(create) => write!(f, "CREATE MODEL {} FROM '{}'", create.name, create.uri),
            Self::DropModel { name, .. } => write!(f, "DROP MODEL {name}"),
            Self::ShowModels => f.write_str("SHOW MODELS"),
            Self::DescribeModel { name } => write!(f, "DESCRIBE MODEL {name}"),
            Self::DataFusion(statement) => write!(f, "{statement}"),
        }
    }
}

/// The statements of `sql`, which semicolons separate.
///
/// # Errors
/// What DataFusion's parser refuses, and mistakes in our statements, each with what was expected.
pub fn parse_sql(sql: &str, dialect: &dyn Dialect) -> DFResult<Vec<PredictStatement>> {
    let mut parser = DFParserBuilder::new(sql).with_dialect(dialect).build()?;
    let mut statements = vec![];
    loop {
        while parser.parser.consume_token(&Token::SemiColon) {}
        if parser.parser.peek_token().token == Token::EOF {
            return Ok(statements);
        }
        statements.push(statement(&mut parser)?);
        let next = parser.parser.peek_token();
        if !matches!(next.token, Token::SemiColon | Token::EOF) {
            return parser.parser.expected("end of statement", next).map_err(syntax);
        }
    }
}

fn syntax(error: ParserError) -> DataFusionError {
    error.into()
}

/// The word at `position` from here, in capitals.
fn word(parser: &Parser, position: usize) -> Option<String> {
    match parser.peek_nth_token(position).token {
        Token::Word(Word { value, quote_style: None, .. }) => Some(value.to_uppercase()),
        _ => None,
    }
}

fn statement(parser: &mut DFParser) -> DFResult<PredictStatement> {
    let words: Vec<_> = (0..4).map(|position| word(&parser.parser, position)).collect();
    let words: Vec<_> = words.iter().map(|word| word.as_deref().unwrap_or_default()).collect();
    match words.as_slice() {
        ["CREATE", "MODEL", ..] | ["CREATE", "OR", "REPLACE", "MODEL"] => create_model(&mut parser.parser),
        ["DROP", "MODEL", ..] => drop_model(&mut parser.parser),
        ["SHOW", "MODELS", ..] => {
            skip(&mut parser.parser, 2);
            Ok(PredictStatement::ShowModels)
        }
        ["DESCRIBE" | "DESC", "MODEL", ..] if is_name(&parser.parser.peek_nth_token(2).token) => {
            skip(&mut parser.parser, 2);
            Ok(PredictStatement::DescribeModel { name: reference(&mut parser.parser)? })
        }
        _ => Ok(PredictStatement::DataFusion(Box::new(parser.parse_statement()?))),
    }
}

fn skip(parser: &mut Parser, tokens: usize) {
    for _ in 0..tokens {
        parser.next_token();
    }
}

fn is_name(token: &Token) -> bool {
    matches!(token, Token::Word(_) | Token::SingleQuotedString(_))
}

fn create_model(parser: &mut Parser) -> DFResult<PredictStatement> {
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
        let names = parser.parse_comma_separated(|parser| parser.parse_identifier()).map_err(syntax)?;
        parser.expect_token(&Token::RParen).map_err(syntax)?;
        features = names
            .into_iter()
            .map(|name| if name.quote_style.is_some() { name.value } else { name.value.to_lowercase() })
            .collect();
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
    let options = ModelOptions::from_pairs(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
    Ok(PredictStatement::CreateModel(CreateModel { name, or_replace, if_not_exists, features, uri, options }))
}

/// `key value`, with a string, a number or a word as value.
fn option(parser: &mut Parser) -> Result<(String, String), ParserError> {
    let key = match parser.next_token() {
        token if is_name(&token.token) => match token.token {
            Token::Word(word) => word.value,
            Token::SingleQuotedString(text) => text,
            _ => return parser.expected("the name of an option", token),
        },
        token => return parser.expected("the name of an option", token),
    };
    let _ = parser.consume_token(&Token::Eq);
    let token = parser.next_token();
    let value = match token.token {
        Token::SingleQuotedString(text) => text,
        Token::Number(number, _) => number,
        Token::Word(word) => word.value,
        _ => return parser.expected("the value of an option: a string, a number or a word", token),
    };
    Ok((key, value))
}

fn drop_model(parser: &mut Parser) -> DFResult<PredictStatement> {
    skip(parser, 2);
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let name = fold_name(&reference(parser)?)?;
    Ok(PredictStatement::DropModel { name, if_exists })
}

/// A name, with what may stand in it: `a`, `a-b.c`, `"A"`, `'a@b'`, `a/3`.
fn reference(parser: &mut Parser) -> DFResult<String> {
    let first = parser.next_token();
    let mut name = match &first.token {
        Token::SingleQuotedString(text) => return Ok(text.clone()),
        Token::Word(Word { value, quote_style: None, .. }) => value.clone(),
        Token::Word(Word { value, .. }) => format!("\"{value}\""),
        _ => return parser.expected("a model's name", first).map_err(syntax),
    };
    loop {
        let joint = match parser.peek_token().token {
            Token::Minus => "-",
            Token::Period => ".",
            Token::Div => "/",
            Token::AtSign => "@",
            Token::Number(number, _) if number.starts_with('.') => {
                parser.next_token();
                name.push_str(&number);
                continue;
            }
            _ => return Ok(name),
        };
        parser.next_token();
        let next = parser.next_token();
        name = match &next.token {
            Token::Word(word) => format!("{name}{joint}{}", word.value),
            Token::Number(number, _) => format!("{name}{joint}{number}"),
            _ => return parser.expected("the rest of a model's name", next).map_err(syntax),
        };
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;

    use super::*;

    fn parse(sql: &str) -> DFResult<Vec<PredictStatement>> {
        parse_sql(sql, &GenericDialect {})
    }

    #[test]
    fn a_model_is_created_with_all_clauses() {
        let sql = "create or replace model Churn-v2.1 features (Age, \"Plan\") from 's3://b/m.onnx'
                   options (output 'probabilities', class 1, batch_size 512); select 1";
        let statements = parse(sql).expect("valid");
        let [PredictStatement::CreateModel(create), PredictStatement::DataFusion(_)] = statements.as_slice() else {
            panic!("{statements:?}")
        };
        assert_eq!(create.name, "churn-v2.1");
        assert_eq!(create.features, ["age", "Plan"]);
        assert_eq!(create.uri, "s3://b/m.onnx");
        assert!(create.or_replace && !create.if_not_exists);
        assert_eq!(create.options.class.as_deref(), Some("1"));
        assert_eq!(create.options.batch_size, Some(512));
    }

    #[test]
    fn words_of_ours_stay_names_elsewhere() {
        for sql in ["CREATE TABLE model (a INT)", "SELECT model FROM models", "DESCRIBE model", "SHOW TABLES"] {
            let statements = parse(sql).expect("valid");
            assert!(matches!(statements.as_slice(), [PredictStatement::DataFusion(_)]), "{sql}");
        }
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        let error = |sql| parse(sql).expect_err(sql).to_string();
        for (sql, expected) in [
            ("CREATE MODEL", "a model's name"),
            ("CREATE MODEL m", "FEATURES (…) or FROM 'uri'"),
            ("CREATE MODEL m FROM uri", "the model's place as a 'string'"),
            ("CREATE MODEL m FROM 'u' OPTIONS (bach_size 1)", "did you mean 'batch_size'?"),
            ("CREATE MODEL m FROM 'u' OPTIONS (batch_size 0)", "a number of rows from 1 on"),
            ("CREATE MODEL m FROM 'u' garbage", "end of statement"),
            ("CREATE MODEL 'a b' FROM 'u'", "not a letter"),
            ("CREATE OR REPLACE MODEL IF NOT EXISTS m FROM 'u'", "exclude each other"),
            ("DROP MODEL", "a model's name"),
        ] {
            assert!(error(sql).contains(expected), "{sql}: {}", error(sql));
        }
    }
}
