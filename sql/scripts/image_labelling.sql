-- Image labelling: the pictures of a folder get labels, and those of which the model is not sure go to a person. Run it from the
-- repository's root:
--     datafusion-predict --echo -f sql/scripts/image_labelling.sql
-- The model is a convolutional network for handwritten digits; the pictures are scans of 32 x 32 pixels.

CREATE OR REPLACE MODEL digits FROM 'tests/models/neural/digits_cnn.onnx'
    OPTIONS (image_size 8, resample box, scale 0.0627451,
             labels ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']);

CREATE TABLE labelled AS
    SELECT path, classify('digits', content) AS found FROM files('tests/models/images/digits/*.png');

SELECT split_part(path, '/', 5) AS scan, found['label'] AS label, found['score'] > 0.95 AS is_sure FROM labelled ORDER BY scan;

SELECT found['label'] AS label, count(*) AS scans FROM labelled GROUP BY label ORDER BY scans DESC, label LIMIT 3;
