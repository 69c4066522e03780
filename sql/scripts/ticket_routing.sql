-- Ticket routing: a new ticket goes to the team whose tickets it is most like. Run it from the repository's root:
--     datafusion-predict --echo -f sql/scripts/ticket_routing.sql

CREATE OR REPLACE MODEL words FROM 'tests/models/static/words';

-- Tickets that were routed by hand.
CREATE TABLE routed AS SELECT * FROM (VALUES
    ('mail', 'IMAP server rejects my mail'), ('mail', 'spam filter for the mail client'), ('mail', 'POP3 mailbox is full'),
    ('network', 'wireless adapter loses the connection'), ('network', 'VPN and DNS do not work'),
    ('network', 'slow network on ethernet'),
    ('graphics', 'screen flickers with the video driver'), ('graphics', 'OpenGL game shows no textures'),
    ('graphics', 'wrong colors on the display')) AS t(team, ticket);

-- What a team's tickets are like: the mean of their vectors.
CREATE TABLE teams AS SELECT team, vector_avg(embed('words', ticket)) AS vector FROM routed GROUP BY team;

CREATE TABLE tickets AS SELECT * FROM (VALUES
    (1, 'cannot send mail with attachments over SMTP'),
    (2, 'no wireless network after suspend'),
    (3, 'black screen with the new graphics driver'),
    (4, 'the firewall blocks my connection')) AS t(id, ticket);

-- Each ticket with the teams it is like, and of these the first.
SELECT id, ticket, team, round(similarity, 3) AS similarity
FROM (SELECT id, ticket, team, cosine_similarity(embed('words', ticket), vector) AS similarity,
             row_number() OVER (PARTITION BY id ORDER BY cosine_similarity(embed('words', ticket), vector) DESC) AS place
      FROM tickets CROSS JOIN teams) AS t
WHERE place = 1 ORDER BY id;
