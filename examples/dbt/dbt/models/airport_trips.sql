-- Trips of green taxis to an airport, with the names of the zones.
select
    trips.data_month,
    trips.source_row,
    trips.pickup_datetime,
    trips.pickup_date,
    coalesce(pickup.borough, 'Unknown') as pickup_borough,
    airport.zone as airport,
    trips.trip_distance,
    trips.trip_seconds,
    trips.total_amount
from {{ source('taxi', 'green_trips') }} as trips
inner join {{ source('taxi', 'taxi_zones') }} as airport
    on trips.dropoff_location_id = airport.location_id
left join {{ source('taxi', 'taxi_zones') }} as pickup
    on trips.pickup_location_id = pickup.location_id
where {{ in_month('trips.data_month') }}
    and airport.zone in ('JFK Airport', 'LaGuardia Airport', 'Newark Airport')
    and not trips.is_reversal
