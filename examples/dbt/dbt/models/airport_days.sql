-- Green taxis to each airport, by day.
select
    data_month,
    pickup_date,
    airport,
    count(*) as trips,
    sum(trip_distance) as miles,
    sum(total_amount) as revenue
from {{ ref('airport_trips') }}
where {{ in_month('data_month') }}
group by data_month, pickup_date, airport
