use crate::harness::Api;
use std::time::Instant;
#[tokio::test]
async fn plans() {
    let api = Api::start("plans").await;
    api.sql("insert into rm_things_b1.things select 'n' || (i % 5000), i, case when i % 3 = 0 then 'a' end, i, date '2010-01-01' + i % 300, now() - i * interval '1 s', i % 1000, true, null, 'round', '[]', 'x' from generate_series(1, 100000) i; analyze rm_things_b1.things").await;
    for p in 0..16 { api.checkpoint(p, 100).await; }
    for (name, sql) in [
        ("get", "select case when coalesce(page.place, 1) = 1 then (select meta.snapshot('things')::text) end, case when coalesce(page.place, 1) = 1 then null::int8 end, page.place is not null, page.c0 from (select 1) always left join (select 1 as place, \"name\" as c0 from rm_things_b1.things where name = 'n7' and number = 7) page on true order by page.place"),
        ("plain", "select case when coalesce(page.place, 1) = 1 then (select meta.snapshot('things')::text) end, page.place is not null, page.c0 from (select 1) always left join (select row_number() over () as place, chosen.* from (select \"name\" as c0 from rm_things_b1.things where (made_on, name, number) > ('2010-05-01', 'n7', 7) order by made_on, name, number limit 51) chosen) page on true order by page.place"),
        ("desc nullable", "select row_number() over () as place, chosen.* from (select \"name\" as c0 from rm_things_b1.things where (((seen_at < now() - interval '1000 s' or seen_at is null)) or seen_at = now() - interval '1000 s' and name < 'n7' or seen_at = now() - interval '1000 s' and name = 'n7' and number < 7) order by seen_at desc nulls last, name desc, number desc limit 51) chosen"),
        ("asc nullable", "select row_number() over () as place, chosen.* from (select \"name\" as c0 from rm_things_b1.things where seen_at >= now() - interval '1000 s' and (seen_at > now() - interval '1000 s' or seen_at = now() - interval '1000 s' and name > 'n7' or seen_at = now() - interval '1000 s' and name = 'n7' and number > 7) order by seen_at nulls first, name, number limit 51) chosen"),
    ] {
        let rows: Vec<(String,)> = sqlx::query_as(sqlx::AssertSqlSafe(format!("explain (analyze, buffers, costs off) {sql}"))).fetch_all(&api.pool).await.unwrap();
        println!("== {name}");
        for r in rows { println!("{}", r.0); }
    }
    for path in ["/v1/things/n7/7", "/v1/things?order=made_on.desc", "/v1/things?order=seen_at.desc&limit=500"] {
        for _ in 0..20 { api.get(path).await; }
        let t = Instant::now();
        for _ in 0..100 { api.get(path).await; }
        println!("{path}: {:?} each", t.elapsed() / 100);
    }
}
