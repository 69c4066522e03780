-- Semantic search: texts become vectors once, and are found by what they mean. Run it from the repository's root:
--     datafusion-predict --echo -f sql/scripts/semantic_search.sql
-- The model is a small static one, which needs no library; a sentence encoder is called alike (docs/texts.md).

CREATE OR REPLACE MODEL words FROM 'tests/models/static/words' OPTIONS (remember '100m');

CREATE TABLE packages AS SELECT * FROM (VALUES
    (1, 'Console player for MP3 and Ogg Vorbis'),
    (2, 'Manager for a large collection of photos'),
    (3, 'IMAP mail client for the terminal'),
    (4, 'Firmware for wireless network adapters'),
    (5, 'Spreadsheet and word processor'),
    (6, 'Graphical editor for music scores')) AS t(id, description);

-- Embed and store: a Parquet file with a vector for each text. What was embedded before is not embedded again.
COPY (SELECT id, description, embed('words', description) AS vector FROM packages)
    TO 'target/semantic_search.parquet';

-- Search: the texts that are nearest to a question.
CREATE EXTERNAL TABLE stored STORED AS PARQUET LOCATION 'target/semantic_search.parquet';
SELECT description, round(cosine_similarity(vector, embed('words', 'play audio files')), 3) AS similarity
FROM stored ORDER BY similarity DESC LIMIT 2;

SELECT description, round(cosine_similarity(vector, embed('words', 'read e-mail')), 3) AS similarity
FROM stored ORDER BY similarity DESC LIMIT 1;
