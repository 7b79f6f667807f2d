"""postgrest-py: the search functions by rpc(). Any server with PostgREST answers them.

    pip install -r requirements.txt
    SUPABASE_URL=https://... SUPABASE_KEY=... python search.py

../supabase-js/setup.sql makes the tables. The client of the package `supabase` has the same rpc().
"""

import os

from postgrest import SyncPostgrestClient


def main():
    key = os.environ["SUPABASE_KEY"]
    client = SyncPostgrestClient(os.environ["SUPABASE_URL"] + "/rest/v1", headers={"apikey": key, "Authorization": f"Bearer {key}"})

    # `filter` comes before the count. A filter behind the call, .eq("lang", "en"), takes rows away from those found.
    found = client.rpc("search_docs", {"search": "I cannot log in", "match_count": 2, "filter": {"lang": "en"}}).execute()
    for row in found.data:
        print(f"{row['similarity']:.2f}  {row['title']}")

    # With match_count the index serves it.
    nearest = client.rpc("query_embeddings", {"search": "when do you bill me?", "match_threshold": 0.1, "match_count": 3}).execute()
    print(nearest.data[0]["content"])

    # A vector as a list of numbers, or as the string that came from the database. The names of the arguments choose the form.
    vector = nearest.data[0]["embedding"]
    like = client.rpc("query_embeddings", {"embedding": vector, "match_threshold": None, "match_count": 2}).execute()
    print("next to it:", like.data[1]["content"])


if __name__ == "__main__":
    main()
