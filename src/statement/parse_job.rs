//! Parses `CREATE JOB` and its kin.

use std::collections::BTreeMap;

use datafusion::common::Result as DFResult;
use datafusion::sql::parser::{CopyToSource, CopyToStatement, DFParser, Statement};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use super::create::option;
use super::parse::{PredictStatement, reference, skip, syntax, word};
use super::relation::rewrite_tables;
use crate::catalog::fold_name;
use crate::error::error;
use crate::job::{CreateJob, JobDefinition, JobOptions, RunReason};
use crate::storage::absolute;

/// Parses a statement about jobs, if it is one; `words` are its first.
pub(super) fn job_statement(parser: &mut DFParser, words: &[&str]) -> DFResult<Option<PredictStatement>> {
    let parser = &mut parser.parser;
    let name_after = |parser: &mut Parser, words: usize| -> DFResult<String> {
        skip(parser, words);
        job_name(parser)
    };
    Ok(Some(match words {
        ["CREATE", "JOB", ..] | ["CREATE", "OR", "REPLACE", "JOB"] => create_job(parser)?,
        ["DROP", "JOB", ..] => {
            skip(parser, 2);
            let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            PredictStatement::DropJob { name: job_name(parser)?, if_exists }
        }
        ["ALTER", "JOB", ..] => alter_job(parser)?,
        ["RUN", "JOB", ..] => {
            let name = name_after(parser, 2)?;
            let full = word(parser, 0).as_deref() == Some("FULL");
            skip(parser, usize::from(full));
            let reason = if full { RunReason::Full } else { RunReason::New };
            PredictStatement::RunJob { name, reason }
        }
        ["RETRY", "JOB", ..] => {
            let name = name_after(parser, 2)?;
            if word(parser, 0).as_deref() != Some("ERRORS") {
                return parser.expected("ERRORS", parser.peek_token()).map_err(syntax);
            }
            skip(parser, 1);
            PredictStatement::RunJob { name, reason: RunReason::Retry }
        }
        ["CANCEL", "JOB", ..] => PredictStatement::CancelJob { name: name_after(parser, 2)? },
        ["ROLLBACK", "JOB", ..] => {
            let name = name_after(parser, 2)?;
            let to = if parser.parse_keyword(Keyword::TO) {
                Some(parser.parse_literal_uint().map_err(syntax)?)
            } else {
                None
            };
            PredictStatement::RollbackJob { name, to }
        }
        ["SHOW", "JOBS", ..] => {
            skip(parser, 2);
            PredictStatement::ShowJobs
        }
        ["DESCRIBE" | "DESC", "JOB", ..] if super::parse::is_name(&parser.peek_nth_token(2).token) => {
            PredictStatement::DescribeJob { name: name_after(parser, 2)? }
        }
        _ => return Ok(None),
    }))
}

fn job_name(parser: &mut Parser) -> DFResult<String> {
    let next = parser.peek_token();
    if !super::parse::is_name(&next.token) {
        return parser.expected("a job's name", next).map_err(syntax);
    }
    Ok(fold_name(&reference(parser)?)?)
}

/// `CREATE [OR REPLACE] JOB [IF NOT EXISTS] name AS COPY (query) TO 'uri' …`
fn create_job(parser: &mut Parser) -> DFResult<PredictStatement> {
    skip(parser, 1);
    let or_replace = parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
    skip(parser, 1);
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    if or_replace && if_not_exists {
        return Err(syntax(ParserError::ParserError("OR REPLACE and IF NOT EXISTS exclude each other".into())));
    }
    let name = job_name(parser)?;
    parser.expect_keyword(Keyword::AS).map_err(syntax)?;
    parser.expect_keyword(Keyword::COPY).map_err(syntax)?;
    let source = if parser.consume_token(&Token::LParen) {
        let query = parser.parse_query().map_err(syntax)?;
        parser.expect_token(&Token::RParen).map_err(syntax)?;
        query
    } else {
        let table = parser.parse_object_name(true).map_err(syntax)?;
        let select = format!("SELECT * FROM {table}");
        Parser::new(&datafusion::sql::sqlparser::dialect::GenericDialect {})
            .try_with_sql(&select)
            .and_then(|mut parser| parser.parse_query())
            .map_err(syntax)?
    };
    if !parser.parse_keyword(Keyword::TO) {
        return parser.expected("TO and the output's place", parser.peek_token()).map_err(syntax);
    }
    let token = parser.next_token();
    let Token::SingleQuotedString(target) = token.token else {
        return parser.expected("the output's place as a 'string'", token).map_err(syntax);
    };
    let mut definition = JobDefinition::new(query_text(source)?, output_folder(&target)?);
    let mut format = None;
    loop {
        match word(parser, 0).as_deref() {
            Some("STORED") => {
                skip(parser, 1);
                parser.expect_keyword(Keyword::AS).map_err(syntax)?;
                let token = parser.next_token();
                let Token::Word(word) = token.token else {
                    return parser.expected("a format, such as PARQUET", token).map_err(syntax);
                };
                format = Some(word.value.to_lowercase());
            }
            Some("PARTITIONED") => {
                skip(parser, 1);
                parser.expect_keyword(Keyword::BY).map_err(syntax)?;
                parser.expect_token(&Token::LParen).map_err(syntax)?;
                let columns = parser.parse_comma_separated(|parser| parser.parse_identifier()).map_err(syntax)?;
                parser.expect_token(&Token::RParen).map_err(syntax)?;
                let folded = columns.into_iter().map(|column| match column.quote_style {
                    Some(_) => column.value,
                    None => column.value.to_lowercase(),
                });
                definition.partition_by = folded.collect();
            }
            Some("CHECK") => {
                skip(parser, 1);
                parser.expect_token(&Token::LParen).map_err(syntax)?;
                let checks = parser.parse_comma_separated(Parser::parse_expr).map_err(syntax)?;
                parser.expect_token(&Token::RParen).map_err(syntax)?;
                definition.checks.extend(checks.iter().map(ToString::to_string));
            }
            Some("KEEP") => {
                skip(parser, 1);
                let keep = parser.parse_literal_uint().map_err(syntax)?;
                definition.options.set("keep", &keep.to_string())?;
            }
            Some("OPTIONS") => {
                skip(parser, 1);
                parser.expect_token(&Token::LParen).map_err(syntax)?;
                let pairs = parser.parse_comma_separated(option).map_err(syntax)?;
                parser.expect_token(&Token::RParen).map_err(syntax)?;
                set_options(&mut definition, pairs)?;
            }
            Some(_) => {
                let expected = "STORED AS, PARTITIONED BY, CHECK, KEEP or OPTIONS";
                return parser.expected(expected, parser.peek_token()).map_err(syntax);
            }
            None => break,
        }
    }
    definition.format = match format.or_else(|| extension_of(&target)) {
        Some(format) => format,
        None => "parquet".to_owned(),
    };
    Ok(PredictStatement::CreateJob(Box::new(CreateJob { name, or_replace, if_not_exists, definition })))
}

/// The query in the form that DataFusion plans.
fn query_text(query: Box<datafusion::sql::sqlparser::ast::Query>) -> DFResult<String> {
    let mut copy = Statement::CopyTo(CopyToStatement {
        source: CopyToSource::Query(query),
        target: String::new(),
        partitioned_by: vec![],
        stored_as: None,
        options: vec![],
    });
    rewrite_tables(&mut copy);
    match copy {
        Statement::CopyTo(CopyToStatement { source: CopyToSource::Query(query), .. }) => Ok(query.to_string()),
        _ => Err(syntax(ParserError::ParserError("expected a query".into()))),
    }
}

/// The folder of the output, as any process finds it.
fn output_folder(target: &str) -> DFResult<String> {
    let folder = absolute(target);
    let folder = folder.trim_end_matches('/');
    let rest = folder.split_once("://").map_or(folder, |(_, rest)| rest);
    let is_root = match folder.split_once("://") {
        Some(("file", rest)) => rest.is_empty(),
        Some(_) => !rest.contains('/'),
        None => rest.is_empty(),
    };
    if is_root {
        return Err(error!(
            InvalidJob,
            "the output can't be '{target}': expected a folder within, as files that are on their way lie beside it"
        )
        .into());
    }
    Ok(format!("{folder}/"))
}

/// The format that the name of the output says.
fn extension_of(target: &str) -> Option<String> {
    let (_, extension) = target.trim_end_matches('/').rsplit('/').next()?.rsplit_once('.')?;
    ["parquet", "csv", "json", "arrow"].contains(&extension).then(|| extension.to_owned())
}

/// Options of the job by their names; those of the format begin with `format.`.
fn set_options(definition: &mut JobDefinition, pairs: Vec<(String, String)>) -> DFResult<()> {
    for (name, value) in pairs {
        let folded = name.to_lowercase();
        if folded.contains("secret")
            || folded.contains("token")
            || folded.contains("password")
            || folded.contains("access_key")
        {
            return Err(error!(
                InvalidOption,
                "option '{name}' can't be part of a job, whose definition others read: set environment variables instead"
            )
            .into());
        }
        if folded.contains('.') {
            definition.format_options.insert(folded, value);
        } else {
            definition.options.set(&folded, &value)?;
        }
    }
    Ok(())
}

/// `ALTER JOB name SET (option value, …)`
fn alter_job(parser: &mut Parser) -> DFResult<PredictStatement> {
    skip(parser, 2);
    let name = job_name(parser)?;
    if !parser.parse_keyword(Keyword::SET) {
        return parser.expected("SET (option value, …)", parser.peek_token()).map_err(syntax);
    }
    if matches!(&parser.peek_token().token, Token::Word(Word { value, .. }) if value.eq_ignore_ascii_case("OPTIONS")) {
        skip(parser, 1);
    }
    parser.expect_token(&Token::LParen).map_err(syntax)?;
    let options = parser.parse_comma_separated(option).map_err(syntax)?;
    parser.expect_token(&Token::RParen).map_err(syntax)?;
    let mut checked = JobOptions::default();
    let options: BTreeMap<_, _> = options.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
    for (option, value) in &options {
        checked.set(option, value)?;
    }
    Ok(PredictStatement::AlterJob { name, options: options.into_iter().collect() })
}
